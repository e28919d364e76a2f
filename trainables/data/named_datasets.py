"""Data sets with a name: scikit-learn's digits and scenes made of them, Mini-ImageNet, Office-Home,
and those that own code names."""

import gzip
import importlib.util
import inspect
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field, model_validator

from trainables.config import Config, PositiveInt
from trainables.data.contract import (
    DatasetType,
    Drawing,
    Masks,
    Settings,
    Source,
    find_place,
    from_listing,
)
from trainables.data.listed_datasets import read_csv, read_image_folder
from trainables.dataset import DataError, Indices, Pixels
from trainables.layouts.class_folders import list_domains
from trainables.layouts.csv_lists import is_manifest
from trainables.layouts.folders import Scan

SCENE_CLASSES = ("photograph", "zero", "one", "seven")
SIDE = 64
_OWN_SIDE = 64  # px, of own code that says no other
_DIGITS = (0, 1, 7)  # of the classes after the first
_SEED = 0


class Scenes(Config):
    """Says how digits are drawn on photographs. Images have the side that `size` says."""

    number: Annotated[int, Field(ge=10, le=10_000)] = Field(
        default=60, description="how many images"
    )
    digit: Annotated[int, Field(ge=8, multiple_of=8)] = Field(
        default=24, description="side of a digit in px, a multiple of 8"
    )
    digits: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)] = Field(
        default=[2, 4], description="fewest and most digits of an image"
    )
    threshold: Annotated[int, Field(ge=1, le=16)] = Field(
        default=8,
        description="grey level of 16 from which a pixel belongs to the digit; less: thicker",
    )
    ink: Annotated[int, Field(ge=0, le=255)] = Field(
        default=0, description="red, green and blue of a digit's color are this at least"
    )
    brightness: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1.0, description="factor of the photographs' levels"
    )

    @model_validator(mode="after")
    def _fewest_first(self) -> "Scenes":
        if self.digits[0] > self.digits[1]:
            raise ValueError(f"digits {self.digits} must be fewest, then most")
        return self


def read_digits(settings: Settings, root: Path | None) -> Source:
    """Read scikit-learn's 1,797 digits of 8x8 px: grey levels 0..16 become 0..255."""
    levels, labels = load_digits()
    grey = np.rint(levels * (255 / 16)).astype(np.uint8)
    return Source(
        classes=tuple(map(str, range(10))),
        names=[f"digits/{i}" for i in range(len(grey))],
        labels=labels,
        parts={"train": np.arange(len(grey))},
        files=[],
        decode=lambda index: Image.fromarray(grey[index]).convert("RGB"),
    )


def read_digit_scenes(settings: Settings, root: Path | None) -> Source:
    """Read scikit-learn's digits on its photographs, with a class for every pixel."""
    if settings.scenes is None:
        images, masks = digit_scenes()
    else:
        images, masks = digit_scenes(settings.scenes, settings.side)
    return Source(
        classes=SCENE_CLASSES,
        names=[f"scenes/{i:03d}" for i in range(len(images))],
        labels=np.full(len(images), -1, dtype=np.int64),
        parts={"train": np.arange(len(images))},
        files=[],
        decode=lambda index: Image.fromarray(images[index]),
        masks=Masks([], lambda index: masks[index]),
    )


def digit_scenes(scenes: Drawing | None = None, side: int = SIDE) -> tuple[Pixels, Pixels]:
    """Make small photographs with digits on them, and masks that are exact by construction.

    side: of an image in px. Returns (60, side, side, 3) uint8 RGB and (60, side, side) uint8 class
    ids, or as many as `scenes` says: parts of two photographs, with digits in one color each. Where
    digits overlap, the later one is on top. Raises DataError where digits or images are too large.
    """
    drawn: Drawing = scenes or Scenes()
    larger = drawn.digit // 8
    (levels, labels), photographs = load_digits(), load_photographs()
    _check_fit(drawn.digit, side, min(min(photo.shape[:2]) for photo in photographs))
    chance = np.random.Generator(np.random.PCG64(_SEED))
    images = np.empty((drawn.number, side, side, 3), dtype=np.uint8)
    masks = np.zeros((drawn.number, side, side), dtype=np.uint8)
    for image, mask in zip(images, masks, strict=True):
        photograph = photographs[chance.integers(len(photographs))]
        top, left = (chance.integers(length - side) for length in photograph.shape[:2])
        image[:] = photograph[top : top + side, left : left + side] * drawn.brightness
        for _ in range(chance.integers(drawn.digits[0], drawn.digits[1] + 1)):
            number = int(chance.integers(len(_DIGITS)))
            shape = levels[chance.choice(np.flatnonzero(labels == _DIGITS[number]))]
            ink = np.kron(shape >= drawn.threshold, np.ones((larger, larger), dtype=bool))
            y, x = chance.integers(side - len(ink) + 1, size=2)
            spot = (slice(y, y + len(ink)), slice(x, x + len(ink)))
            image[spot][ink] = chance.integers(drawn.ink, 256, size=3)
            mask[spot][ink] = number + 1
    return images, masks


def _check_fit(digit: int, side: int, most: int) -> None:
    if digit > side or side >= most:
        raise DataError(
            f"size {side} must hold a digit of {digit} px and lie in photographs of {most} px: set "
            f"size to {digit} or more, and to less than {most}"
        )


def load_digits() -> tuple[npt.NDArray[np.float64], Indices]:
    """Return scikit-learn's digits: (1797, 8, 8) grey levels 0..16 and (1797,) labels.

    They are those of `sklearn.datasets.load_digits`, which takes seconds to import.
    """
    text = gzip.decompress((_sklearn_files() / "data" / "digits.csv.gz").read_bytes())
    numbers = np.array(text.replace(b"\n", b",").rstrip(b",").split(b","), dtype=np.float64)
    table = numbers.reshape(-1, 65)  # 64 pixels and the label
    return table[:, :64].reshape(-1, 8, 8), table[:, 64].astype(np.int64)


def load_photographs() -> list[npt.NDArray[Any]]:
    """Return scikit-learn's two photographs, each (H, W, 3) uint8 RGB, as `load_sample_images`."""
    files = sorted((_sklearn_files() / "images").glob("*.jpg"))
    return [np.asarray(Image.open(file)) for file in files]


def _sklearn_files() -> Path:
    """Return the folder of scikit-learn's own data sets."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DataError("scikit-learn is not installed, and brings this data set: install it")
    return Path(spec.origin).parent / "datasets"


def read_mini_imagenet(settings: Settings, root: Path | None) -> Source:
    """Read Mini-ImageNet: train.csv with its images, class folders, or images without labels."""
    if is_manifest(find_place(settings, root)):
        return read_csv(settings, root, join=True)
    return read_image_folder(settings, root)


def read_office_home(settings: Settings, root: Path | None) -> Source:
    """Read Office-Home: the official folders, domain/class/image, or train.csv with its images."""
    folder = find_place(settings, root)
    if not is_manifest(folder):
        scan = Scan(folder)
        return from_listing(folder, list_domains(scan, settings.domains), scan)
    if settings.domains is not None:
        raise DataError(f"{folder} holds train.csv, which knows no domains: remove `domains:`")
    return read_csv(settings, root)


def as_dataset_type(value: Any, name: str) -> DatasetType:
    """Return the data set type that own code defines: a `DatasetType`, or the function of one, for
    images of 64 px. name: `module:Name`. Raises TypeError."""
    if isinstance(value, DatasetType):
        return value
    if not inspect.isfunction(value):
        raise TypeError(
            f"{name} is a {type(value).__name__}, and must be a function from settings and a "
            "folder to a Source, or a DatasetType of one"
        )
    about = (inspect.getdoc(value) or "").partition("\n")[0]
    return DatasetType(value, _OWN_SIDE, about or name)
