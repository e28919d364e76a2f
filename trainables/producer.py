"""Defines the contract of a producer: it makes artifacts image by image, and trains nothing."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainables.dataset import Pixels
from trainables.schemas.producer import ProducerSchema


@dataclass(frozen=True)
class Product:
    """Holds what a producer made of one image.

    files: ending, such as `.json` → content; figures: metric → value, of which a Run reports the
    mean over the images that have one.
    """

    files: Mapping[str, bytes]
    figures: Mapping[str, float]


class Producer(ProducerSchema):
    """Makes one kind of artifact."""

    @abstractmethod
    def __init__(self, config: Any, device: torch.device) -> None:
        """Load what is needed, on `device`. Raises ValueError if its files do not fit."""

    @abstractmethod
    def produce(self, name: str, image: Pixels, truth: Pixels | None, classes: int) -> Product:
        """Make the artifacts of one image.

        name: of the image; image: (H, W, 3) uint8 RGB; truth: (H, W) uint8 class ids in
        [0, classes), 255 where a pixel does not count, None without masks.
        """
