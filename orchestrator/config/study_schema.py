"""The form of a study: what a file may say, and what a checked study is."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.config.search_schema import Search, Seed
from trainables.config import Config
from trainables.data.datasets import DatasetConfig
from trainables.producer import ProducerConfig
from trainables.training_config import TrainableConfig

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Resources(Config):
    """What one Run gets. `auto`: a GPU where the cluster has one; an equal share of the CPUs."""

    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    cpus_per_worker: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    gpus_per_worker: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    max_failures: Annotated[int, Field(ge=0)] = 2  # starts again after its process or node died

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and value > 1 and value != int(value):
            raise ValueError(f"is {value:g}: above 1 a worker gets whole GPUs only")
        return value


class CompareSpec(Config):
    """What `compare` shows. stages: None means those that no other stage starts from. gains: pairs
    of them; how far the first is ahead of the second, seed by seed."""

    metric: str = "test/accuracy"
    stages: list[str] | None = None
    gains: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    rows: Literal["stage", "label"] = "label"
    plots: list[Literal["bars", "curves", "loss", "tsne", "masks"]] = ["bars", "curves", "loss"]


class StageFile(Config):
    """A stage as written: what learns, or what makes artifacts; its config and grid are checked by
    that one's own Config."""

    trainable: str | None = None
    producer: str | None = None
    after: str | None = None
    weights: str | None = None  # a state-dict file in place of this stage's training
    config: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    search: Search | None = None

    @model_validator(mode="after")
    def _has_one_task(self) -> "StageFile":
        if (self.trainable is None) == (self.producer is None):
            raise ValueError("needs one of `trainable:` (learns) and `producer:` (makes artifacts)")
        learns = self.after or self.weights or self.seeds or self.search
        if self.producer is not None and learns:
            raise ValueError(
                "a producer has no `after`, `weights`, `seeds` and `search`: it does not learn"
            )
        return self

    @property
    def task(self) -> str:
        """Name of the trainable or producer."""
        return str(self.trainable or self.producer)


class StudyFile(Config):
    """The top level of a study file."""

    study: str
    question: str = ""
    data: Annotated[dict[str, DatasetConfig], Field(min_length=1)]
    resources: Resources = Resources()
    stages: Annotated[dict[str, StageFile], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    compare: CompareSpec = CompareSpec()
    reference: dict[str, float] = {}


@dataclass(frozen=True)
class Variant:
    """One point of a stage's grid: the values that differ, and the whole configuration."""

    values: tuple[tuple[str, Any], ...]
    config: TrainableConfig | ProducerConfig


@dataclass(frozen=True)
class Stage:
    """One trainable or producer with its configurations, its parent stage and its seeds."""

    name: str
    trainable: str  # or the producer
    after: str | None
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    search: Search | None = None  # what is to find its variants; until then the one as written


@dataclass(frozen=True)
class Study:
    """A study without a fault. `stages` are in an order in which parents come first."""

    name: str
    question: str
    data: Mapping[str, DatasetConfig]
    resources: Resources
    stages: tuple[Stage, ...]
    compare: CompareSpec
    reference: Mapping[str, float]
    mapping: Mapping[str, Any]  # the file after `--set`, paths absolute; from_mapping reads it
    given: Mapping[str, str] = field(default_factory=dict)  # stage that is not trained → its file
    searches: Mapping[str, Search] = field(default_factory=dict)  # stage → its search, also when
    # it has found
