"""The contract of what makes artifacts without learning: image after image, each on its own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from trainables.config import Config

Pixels = npt.NDArray[np.uint8]


class ProducerConfig(Config):
    """What every producer understands."""

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
    """What one image gave. files: ending, such as `.json` → content; figures: name → value, of
    which a Run reports the mean over the images that have one."""

    files: Mapping[str, bytes]
    figures: Mapping[str, float]


class Producer(ABC):
    """One kind of artifact."""

    Config: ClassVar[type[ProducerConfig]]
    FIGURES: ClassVar[tuple[str, ...]]  # what its Runs report
    FOLDER: ClassVar[str]  # of its artifacts

    @abstractmethod
    def __init__(self, config: Any, device: torch.device) -> None:
        """Ready to work. Raises ValueError where its files do not fit."""

    @abstractmethod
    def produce(self, name: str, image: Pixels, truth: Pixels | None, classes: int) -> Product:
        """name: of the image; image: (H, W, 3) RGB; truth: (H, W) class ids in [0, classes), 255
        where a pixel does not count, of data sets with masks."""

    @classmethod
    @abstractmethod
    def default_weights(cls, config: Mapping[str, Any]) -> str:
        """The file that a configuration means which names none."""

    @classmethod
    @abstractmethod
    def check(cls, config: Any) -> None:
        """Before anything starts: raises ValueError, one line, where its files do not fit."""
