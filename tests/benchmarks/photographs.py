"""A folder of JPEG files that a data set can be read from: smooth noise, class by class."""

from pathlib import Path

import numpy as np
from PIL import Image

from trainables.data.datasets import DatasetConfig, read
from trainables.loading.decoded_cache import build
from trainables.loading.fingerprints import fingerprint

CLASSES = 10


def make_photographs(folder: Path, count: int, side: int) -> None:
    """`count` photographs of `side` px below `folder`, in ten class folders."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"class_{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        image.save(place / f"{number:06d}.jpg", quality=90)


def build_table(folder: Path, side: int, cache: Path) -> Path:
    """The decoded data set below `cache`."""
    config = DatasetConfig.model_validate({"type": "image_folder", "path": str(folder),
                                           "size": side})  # fmt: skip
    source = read(config, None)
    cache.mkdir(parents=True, exist_ok=True)
    return build(source, config, fingerprint(source, config, cache / "manifest.json"), cache)
