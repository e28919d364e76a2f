"""Defines what a study must know of a producer: its keys, its metrics, its files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from trainables.config import Config


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


class ProducerSchema(ABC):
    """Holds what a study must know of a producer. Subclasses set the class attributes."""

    Config: ClassVar[type[ProducerConfig]]
    FIGURES: ClassVar[tuple[str, ...]]  # metrics that its Runs report
    FOLDER: ClassVar[str]  # name of the folder of its artifacts

    @classmethod
    @abstractmethod
    def default_weights(cls, config: Mapping[str, Any]) -> str:
        """Return the file of a configuration that names no `weights`."""

    @classmethod
    @abstractmethod
    def check(cls, config: Any) -> None:
        """Check its files before anything starts. Raises ValueError, one line."""
