"""The form of a search: what a stage's `search:` may say, and whether its space fits the stage."""

import math
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from orchestrator.config.errors import ErrorList, near
from orchestrator.sampling.dimension import Dimension, Kind, typed
from orchestrator.sampling.registry import SAMPLERS
from trainables.config import ONLY_LOOKS, Config
from trainables.training_config import TrainableConfig

Seed = Annotated[int, Field(ge=0, lt=2**32)]
# orchestrator.tuning.schedulers builds them; this file must not import Ray
SchedulerName = Literal["none", "asha", "median", "pbt"]
if TYPE_CHECKING:  # the registry says which names there are
    SamplerName = str
else:
    SamplerName = Literal[tuple(SAMPLERS)]
_FIXED = ("dataset", "weights", "changes")  # another data set is another question
_LINKED = ("backbone", "stem")  # both ends of a hand-off must have the same


class Then(Config):
    """What follows a search: its `best` configurations, and the stage's own as it is written, are
    trained over the seeds; other stages start from the best ones."""

    best: Annotated[int, Field(ge=1)] = 1
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None  # None: the study's
    default: bool = True  # whether the configuration as written is trained too, to compare with


class Search(Config):
    """`search:` of a stage. A trial is chosen by `metric` on validation data, at its best epoch.

    over: the stages that a trial trains one after the other, this one last; a parameter of another
    one is written with its stage, `byol.lr`. Empty: a trial is this stage alone.
    """

    over: list[str] = []
    metric: str = "val/accuracy"
    mode: Literal["max", "min"] = "max"
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = None  # None: a grid has its own number
    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    algorithm: SamplerName = "optuna"
    scheduler: SchedulerName = "none"
    grace_epochs: Annotated[int, Field(ge=1)] = 1  # before which no trial is stopped
    reduction_factor: Annotated[int, Field(ge=2)] = 3  # asha: one in so many goes on at a rung
    interval_epochs: Annotated[int, Field(ge=1)] = 1  # pbt: the worst learn from the best so often
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25  # pbt: so many are the worst, the best
    seed: Seed | None = None  # of every trial and of what is drawn; None: the stage's first
    stall_minutes: Annotated[float, Field(gt=0)] = 30.0  # without progress a trial has failed
    then: Then | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "Search":
        exhaustive = SAMPLERS[self.algorithm].EXHAUSTIVE
        if not exhaustive and self.trials is None:
            raise ValueError("needs `trials:`, the number of configurations to try")
        if exhaustive:
            ranges = [name for name, axis in self.space.items() if axis.choice is None]
            if ranges:
                raise ValueError(
                    f"a grid has no end on the range of {ranges[0]!r}: give it `choice: [...]`, or "
                    "take algorithm random or optuna"
                )
            if self.trials is not None and self.trials != self.size:
                raise ValueError(f"the grid has {self.size} points: leave `trials` out")
        if self.metric.endswith("/loss") and self.mode == "max":
            raise ValueError(f"mode max looks for the worst {self.metric}: say `mode: min`")
        if self.scheduler == "pbt":
            self._check_population()
        return self

    def _check_population(self) -> None:
        if self.count < 2:
            raise ValueError("pbt with one trial: there is nobody to learn from, say `trials: 2`")
        if self.over:
            raise ValueError("pbt changes what is trained on its way: it is `over` one stage only")
        if self.then and self.then.best > 1:
            raise ValueError("the best of a population are related: say `then: {best: 1}`")

    @property
    def size(self) -> int | None:
        """Distinct configurations of a space of choices; None where there is a range."""
        counts = [len(axis.choice) if axis.choice else 0 for axis in self.space.values()]
        return math.prod(counts) or None

    @property
    def count(self) -> int:
        """Trials in all: never more than there are distinct configurations."""
        wanted = [number for number in (self.trials, self.size) if number is not None]
        return min(wanted)


def owner_of(name: str) -> tuple[str, str]:
    """Stage and parameter of a key of the space; no stage for the searched one's own."""
    stage, _, parameter = name.rpartition(".")
    return stage, parameter


def values_of(values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The part of a trial's values that configures one stage. owner: as `owner_of` says it."""
    split = {name: owner_of(name) for name in values}
    return {split[name][1]: value for name, value in values.items() if split[name][0] == owner}


def check_axis(
    dotted: str, axis: Dimension, base: TrainableConfig, parameter: str, errors: ErrorList
) -> None:
    """Both ends of a range, and every choice, must be values that the stage could have.

    dotted: the key of the axis; base: the stage's configuration as written.
    """
    model = type(base)
    fixed = (*_FIXED, *ONLY_LOOKS)
    if parameter in fixed:
        errors.add(dotted, f"{parameter!r} is the same in every trial: it cannot be searched")
        return
    if parameter not in model.model_fields:
        allowed = [field for field in model.model_fields if field not in fixed]
        errors.add(dotted, f"unknown key{near(parameter, allowed, 'keys')}")
        return
    kind = number_type(model, parameter)
    if axis.choice is None and kind is None:
        errors.add(dotted, f"{parameter!r} is no number: give it `choice: [...]`")
    elif axis.choice is None and kind is int and not axis.whole:
        errors.add(
            dotted, f"{parameter!r} takes whole numbers: so must its range, not {axis.ends()}"
        )
    else:
        for value in axis.ends_of(kind):
            found = ErrorList()
            found.validate(model, {**base.model_dump(), parameter: typed(kind, value)})
            for line in found.lines:
                errors.add(dotted, line.removeprefix(f"{parameter}: "))


def number_type(model: type[TrainableConfig], parameter: str) -> Kind:
    """What kind of number a parameter is; None where it is none."""
    annotation = model.model_fields[parameter].annotation
    kinds = typing.get_args(annotation) or (annotation,)
    bare = [typing.get_args(kind)[0] if typing.get_args(kind) else kind for kind in kinds]
    return next((kind for kind in (int, float) if kind in bare), None)


def linked(search: Search) -> list[str]:
    """Keys of the space that a parent and a child must share."""
    return [name for name in search.space if owner_of(name)[1] in _LINKED]
