"""Defines the contract of a producer: it makes artifacts image by image, and trains nothing."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from trainables.config import Config
from trainables.dataset import Pixels


class ProducerConfig(Config):
    """Holds the keys that every producer understands."""

    dataset: str = Field(description="the data set to work on: a name under `data:`")
    images: Literal["watched", "all"] = Field(
        "all", description="all images, or those that the study's segmentations watch"
    )
    weights: str = Field(description="the checkpoint file; default: the producer's own")
    watch: list[str] = Field(
        [], description="names of images, such as 0013; default: three of validation"
    )


@dataclass(frozen=True)
class Product:
    """Holds what a producer made of one image.

    files: ending, such as `.json` → content; figures: metric → value, of which a Run reports the
    mean over the images that have one.
    """

    files: Mapping[str, bytes]
    figures: Mapping[str, float]


class Producer(ABC):
    """Makes one kind of artifact."""

    Config: ClassVar[type[ProducerConfig]]
    FIGURES: ClassVar[tuple[str, ...]]  # metrics that its Runs report
    FOLDER: ClassVar[str]  # name of the folder of its artifacts

    @abstractmethod
    def __init__(self, config: Any, device: torch.device) -> None:
        """Load what is needed, on `device`. Raises ValueError if its files do not fit."""

    @abstractmethod
    def produce(self, name: str, image: Pixels, truth: Pixels | None, classes: int) -> Product:
        """Make the artifacts of one image.

        name: of the image; image: (H, W, 3) uint8 RGB; truth: (H, W) uint8 class ids in
        [0, classes), 255 where a pixel does not count, None without masks.
        """

    @classmethod
    @abstractmethod
    def default_weights(cls, config: Mapping[str, Any]) -> str:
        """Return the file of a configuration that names no `weights`."""

    @classmethod
    @abstractmethod
    def check(cls, config: Any) -> None:
        """Check its files before anything starts. Raises ValueError, one line."""
