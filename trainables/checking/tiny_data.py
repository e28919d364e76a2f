"""Makes the tiny data and the short configuration that a trainable is checked with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables.checking.faults import Broken
from trainables.data.datasets import DatasetConfig
from trainables.loading.decoded_cache import load_table
from trainables.loading.image_table import ImageTable
from trainables.trainable import Trainable
from trainables.training_config import TrainableConfig

IMAGES = 30  # training images, validation included
_SIDE = 32  # px of the digits; those of masks have 64
_SHORT = {"dataset": "tiny", "epochs": 2, "batch_size": 8, "lr": 0.01, "precision": "float32"}
_SMALL = {"backbone": "resnet10_slim", "small_input": True}


def tiny_table(needs: str | None, folder: Path) -> ImageTable:
    """Return a decoded data set of the kind that a trainable needs: digits in ten classes, or
    digits on photographs with masks. folder: of the cache."""
    if needs == "masks":
        keys: dict[str, Any] = {"type": "digit_scenes", "limit": IMAGES}
    else:
        limits = {"train": IMAGES, "val": 12, "test": 12}
        keys = {"type": "digits", "size": _SIDE, "limit": limits}
    return load_table(DatasetConfig.model_validate(keys), folder)


def short_config(kind: type[Trainable], settings: Mapping[str, Any]) -> TrainableConfig:
    """Return a configuration for a check of seconds. settings: what it must have besides. Raises
    Broken where the configuration of the trainable does not take that."""
    first: ValidationError | None = None
    for small in (_SMALL, {}):
        try:
            return kind.Config.model_validate(_SHORT | small | dict(settings))
        except ValidationError as error:
            first = first or error
    assert first is not None
    item = first.errors(include_url=False)[0]
    key = ".".join(map(str, item["loc"])) or "its keys"
    raise Broken(
        f"Config refuses {dict(_SHORT | _SMALL | dict(settings))}: {key}: {item['msg']}: "
        "give it what it needs with --set KEY=VALUE"
    )
