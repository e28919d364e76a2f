"""The form of a study: what a file may say, and what a checked study is."""

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from orchestrator.config.mlflow_settings import NotifySettings
from orchestrator.config.search_schema import Search, Seed
from orchestrator.needs.environment import Environment
from orchestrator.needs.priority import Priority
from orchestrator.needs.resources import Resources
from trainables.config import Config
from trainables.data.datasets import DatasetConfig
from trainables.metrics import OF_PREDICTIONS, Metric
from trainables.schemas.producer import ProducerConfig
from trainables.training_config import TrainableConfig

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
VARIED = ("init", "order")  # what seeds draw where a study does not say it
_CAN_VARY = (*VARIED, "split")  # what they can draw, in the order in which plans have it
MOST_RUNS = 100_000  # of a study; more would take hours to plan, and years to train


# Plot of a comparison → what it shows. To add one: a line here, and a file of that name in
# orchestrator/plots/, which draws it.
PLOTS = {
    "bars": "mean of each row, with its 95 % interval, single seeds and reference",
    "differences": "each of compare.differences, with its 95 % interval and single seeds",
    "curves": "the compared metric over the epochs",
    "loss": "validation loss over the epochs, of every stage",
    "tsne": "t-SNE maps of the validation features after the last epoch",
    "masks": "watched images with ground truth and the masks that each model predicts",
}
if TYPE_CHECKING:
    PlotName = str
    FigureName = str
else:
    PlotName = Literal[tuple(PLOTS)]
    FigureName = Literal[OF_PREDICTIONS]


class CompareSpec(Config):
    """Says what `compare` shows: the table and plots that answer the study's question."""

    metric: str = Field(
        default="test/accuracy",
        description="the metric that is compared; of a study of producers alone the first that "
        "they report",
    )
    stages: list[str] | None = Field(
        default=None,
        description="stages of the table; default: those that no other stage starts from",
    )
    differences: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        default=[],
        description="pairs of stages: the first minus the second, paired by seed; of a grid, each "
        "point",
    )
    rows: Literal["stage", "label"] = Field(
        default="label", description="one row per stage, or per label (a stage and its grid values)"
    )
    figures: list[FigureName] = Field(
        default=[],
        description="more figures of the test, of classifiers; class_accuracy and domain_accuracy: "
        "of each class, and of each domain folder",
    )
    plots: list[PlotName] = Field(
        default=["bars", "curves", "loss"], description="plots that are drawn"
    )


class StageFile(Config):
    """A stage as it is written: one trainable or producer, and its configuration."""

    trainable: str | None = Field(None, description="what learns, such as classify")
    producer: str | None = Field(None, description="what makes artifacts, such as sam")
    after: str | None = Field(None, description="the stage whose weights this one starts from")
    weights: str | None = Field(
        None,
        description="a file of weights (a state dict: name → tensor) that takes the place of this "
        "stage's training",
    )
    config: dict[str, Any] = Field({}, description="keys of the trainable or producer")
    grid: dict[str, list[Any]] = Field(
        {}, description="key of `config` → list of values: every combination is trained"
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="one Run for each seed; default: the study's"
    )
    search: Search | None = Field(None, description="search for the best configuration")
    resources: Resources | None = Field(
        None, description="what one Run of this stage gets: keys that replace those of the study"
    )

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


class Seeds(Config):
    """Says which seeds there are, and what they draw. What they do not draw is that of seed 0."""

    values: Annotated[list[Seed], Field(min_length=1)] = Field(
        [0], description="one Run of every configuration for each seed"
    )
    vary: Annotated[list[Literal["init", "order", "split"]], Field(min_length=1)] = Field(
        ["init", "order"],
        description="init: the first weights; order: the order of images, augmentation and "
        "dropout; split: how images are cut into train, val and test, with `split_seed` + seed",
    )


def _form_of_seeds(value: Any) -> str:
    return "mapping" if isinstance(value, Mapping | Seeds) else "list"


class StudyFile(Config):
    """The top level of a study file."""

    study: str = Field(description="its name: 64 letters, digits, '_' and '-' at most")
    question: str = Field("", description="the question that the comparison answers")
    code: list[str] = Field(
        [],
        description="own code, which travels with the study: .py files and folders of packages, "
        "such as `[my_module.py, my_package]`; see trainables/README.md",
    )
    data: Annotated[dict[str, DatasetConfig], Field(min_length=1)] = Field(
        description="name → data set; `x: digits` is short for `x: {type: digits}`"
    )
    resources: Resources = Field(Resources(), description="what one Run gets of the machine")
    environment: Environment = Field(
        Environment(), description="packages and variables that its processes get on a cluster"
    )
    priority: Priority = Field(
        "normal",
        description="whose Runs start first where several studies use a cluster: low (-10), normal "
        "(0), urgent (10) or a number. Of equal ones comes first who uses least of the cluster",
    )
    stages: Annotated[dict[str, StageFile], Field(min_length=1)] = Field(
        description="name → stage: what is trained, and from which weights"
    )
    seeds: Annotated[
        Annotated[list[Seed], Field(min_length=1), Tag("list")] | Annotated[Seeds, Tag("mapping")],
        Discriminator(_form_of_seeds),
    ] = Field(
        [0],
        description="one Run of every configuration for each seed; a mapping says also what seeds "
        "draw: `{values: [0, 1, 2], vary: [init]}`",
    )
    compare: CompareSpec = Field(CompareSpec(), description="the comparison at the end")
    notify: NotifySettings | None = Field(
        None,
        description="whom to tell when it is done, fails, stalls or collapses; default: as "
        "orchestrator.yaml says",
    )
    reference: dict[str, float] = Field(
        {},
        description="stage or label → published value of the metric, as a fraction where the table "
        "has per cent; shown in a column of its own",
    )

    def seeds_of(self, name: str) -> tuple[int, ...]:
        """Return the seeds of a stage's Runs; of a searched stage those of the Runs after its
        search."""
        stage = self.stages[name]
        seeds = self.seeds.values if isinstance(self.seeds, Seeds) else self.seeds
        if stage.producer is not None:  # nothing in it is random
            return (seeds[0],)
        then = stage.search.then if stage.search else None
        own = then.seeds if then else stage.seeds
        return tuple(seeds if own is None else own)

    @property
    def vary(self) -> tuple[str, ...]:
        """Return what the seeds draw, in one order however it is written."""
        vary = self.seeds.vary if isinstance(self.seeds, Seeds) else VARIED
        return tuple(what for what in _CAN_VARY if what in vary)

    def seeds_needed_by(self, name: str) -> set[int]:
        """Return the seeds that a stage needs its parent to have."""
        search, seeds = self.stages[name].search, self.seeds_of(name)
        if search is None:
            return set(seeds)
        return {search.trial_seed(seeds), *(seeds if search.then else ())}

    def compared(self) -> CompareSpec:
        """`compare` with its stages: those that it names, else the stages that no other one starts
        from and those that have a search."""
        if self.compare.stages:
            return self.compare
        parents = {stage.after for stage in self.stages.values()}
        names = [name for name, stage in self.stages.items() if name not in parents or stage.search]
        return self.compare.model_copy(update={"stages": names})

    def weight_files(self) -> dict[str, str]:
        """Return the stages whose weights come as a file instead of being trained → the file."""
        return {name: stage.weights for name, stage in self.stages.items() if stage.weights}

    def parents_first(self) -> list[str]:
        """Names of the stages, every one after its parent. For a study without a cycle."""
        order: dict[str, None] = {}
        for name in self.stages:
            order |= dict.fromkeys(reversed(self._upstream(name, order)))
        return list(order)

    def cycle(self) -> list[str]:
        """Return the stages whose `after` leads back to the first of them, which is last too; empty
        if none does."""
        checked: set[str] = set()
        for name in self.stages:
            path = self._upstream(name, checked)
            last = self.stages[path[-1]].after if path else None
            if last in path:
                return [str(last), *reversed(path[path.index(str(last)) :])]
            checked.update(path)
        return []

    def _upstream(self, name: str | None, known: Container[str]) -> list[str]:
        """Return a stage and those that it starts from, the nearest first, up to one that is known
        or that comes again."""
        path: dict[str, None] = {}
        while name in self.stages and name not in known and name not in path:
            path[str(name)] = None
            name = self.stages[str(name)].after
        return list(path)


@dataclass(frozen=True)
class Variant:
    """One point of a stage's grid: the values that differ, and the whole configuration."""

    values: tuple[tuple[str, Any], ...]
    config: TrainableConfig | ProducerConfig


Variants = Mapping[str, tuple[Variant, ...]]  # stage → its configurations


@dataclass(frozen=True)
class Stage:
    """One trainable or producer with its configurations, its parent stage and its seeds."""

    name: str
    trainable: str  # or the producer
    after: str | None
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    search: Search | None = None  # finds its variants; until it ends, the one as written
    resources: Resources = Resources()  # what each of its Runs gets
    vary: tuple[str, ...] = VARIED  # what the seed of a Run draws

    @property
    def trains(self) -> bool:
        """Return whether it learns; a producer does not."""
        return all(isinstance(v.config, TrainableConfig) for v in self.variants)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Return the seeds of its Runs and of the trials of its search."""
        trials = [self.search.trial_seed(self.seeds)] if self.search else []
        return tuple(dict.fromkeys((*trials, *self.seeds)))


@dataclass(frozen=True)
class Study:
    """A study without errors. `stages` are in an order in which parents come first."""

    name: str
    question: str
    data: Mapping[str, DatasetConfig]
    resources: Resources
    stages: tuple[Stage, ...]
    compare: CompareSpec
    reference: Mapping[str, float]
    mapping: Mapping[str, Any]  # the file after `--set`, paths absolute; from_mapping reads it
    weight_files: Mapping[str, str] = field(default_factory=dict)  # untrained stage → its file
    searches: Mapping[str, Search] = field(default_factory=dict)  # stage → its search, ended or not
    notify: NotifySettings | None = None
    priority: Priority = "normal"
    metrics: tuple[Metric, ...] = ()  # those of its own code
    warnings: tuple[str, ...] = field(default=(), compare=False)  # one line for each old key
