"""The form of a search: what `search:` of a stage may say, and whether its space fits."""

import math
import typing
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from orchestrator.config.errors import ErrorList, suggestion
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
DEFAULT = "_default"  # ends the name of the stage that is trained as it is written


class Then(Config):
    """Says what follows a search: its best configurations, and the stage's own as it is written,
    are trained over the seeds. Other stages start from the best ones."""

    best: Annotated[int, Field(ge=1)] = Field(
        1, description="number of best configurations that are trained over the seeds"
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = Field(
        None, description="one Run for each seed; default: the study's"
    )
    default: bool = Field(True, description="train the configuration as written too, to compare")


class Search(Config):
    """`search:` of a stage. Trials are compared by `metric` on validation data, at their best
    epoch."""

    over: list[str] = Field(
        [],
        description="stages that a trial trains one after the other, this one last; a "
        "parameter of another one is written with its stage, `byol.lr`; default: this stage alone",
    )
    metric: str = Field("val/accuracy", description="the metric that chooses the best trial")
    mode: Literal["max", "min"] = Field("max", description="whether high or low values are better")
    trials: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="number of configurations to try; default: all points of a grid"
    )
    space: Annotated[dict[str, Dimension], Field(min_length=1)] = Field(
        description="parameter → its range: `lr: {log: [0.001, 0.1]}`"
    )
    algorithm: SamplerName = Field(
        "optuna", description="how configurations are drawn; optuna: by the results so far (TPE)"
    )
    scheduler: SchedulerName = Field(
        "none", description="what stops bad trials early; pbt: they continue from good ones"
    )
    grace_epochs: Annotated[int, Field(ge=1)] = Field(
        1, description="epochs before which no trial is stopped"
    )
    reduction_factor: Annotated[int, Field(ge=2)] = Field(
        3,
        description="asha: 3 means that the best third of the trials goes on after 1, 3, 9, ... "
        "epochs",
    )
    interval_epochs: Annotated[int, Field(ge=1)] = Field(
        1, description="pbt: epochs after which the worst trials copy the best, again and again"
    )
    quantile: Annotated[float, Field(gt=0, le=0.5)] = Field(
        0.25, description="pbt: the share of trials that count as the worst, and as the best"
    )
    seed: Seed | None = Field(
        None, description="seed of every trial and of the draws; default: the stage's first"
    )
    stall_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="minutes without progress after which a trial has failed"
    )
    then: Then | None = Field(
        None, description="what is trained with the best configurations; default: nothing"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Search":
        exhaustive = SAMPLERS[self.algorithm].EXHAUSTIVE
        if not exhaustive and self.trials is None:
            raise ValueError("needs `trials:`, the number of configurations to try")
        if exhaustive:
            ranges = [name for name, axis in self.space.items() if axis.choice is None]
            if ranges:
                raise ValueError(
                    f"algorithm grid cannot list the range of {ranges[0]!r}: give it "
                    "`choice: [...]`, or set algorithm to random or optuna"
                )
            if self.trials is not None and self.trials != self.size:
                raise ValueError(f"the grid has {self.size} points: remove `trials`")
        if self.metric.endswith("/loss") and self.mode == "max":
            raise ValueError(f"mode max chooses the worst {self.metric}: set `mode: min`")
        if self.scheduler == "pbt":
            self._check_population()
        return self

    def _check_population(self) -> None:
        if self.count < 2:
            raise ValueError("pbt needs at least two trials to exploit: set `trials: 2` or more")
        if self.over:
            raise ValueError("pbt changes values during one training: remove `over`")
        if self.then and self.then.best > 1:
            raise ValueError("the best of a population share weights: set `then: {best: 1}`")

    @property
    def size(self) -> int | None:
        """Return the number of distinct configurations; None where the space has a range."""
        counts = [len(axis.choice) if axis.choice else 0 for axis in self.space.values()]
        return math.prod(counts) or None

    @property
    def count(self) -> int:
        """Return the number of trials: never more than there are distinct configurations."""
        return min(number for number in (self.trials, self.size) if number is not None)

    def trial_seed(self, seeds: Sequence[int]) -> int:
        """Return the seed of every trial and of the draws. seeds: of the searched stage."""
        return seeds[0] if self.seed is None else self.seed


def owner_of(name: str) -> tuple[str, str]:
    """Split a key of the space into stage and parameter; the searched stage itself is ''."""
    stage, _, parameter = name.rpartition(".")
    return stage, parameter


def values_of(values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Return the part of a trial's values that configures one stage. owner: as in `owner_of`."""
    owners = {name: owner_of(name) for name in values}
    return {owners[name][1]: value for name, value in values.items() if owners[name][0] == owner}


def found_name(stage: str, searched: str) -> str:
    """Return the name of a stage as the search over it and `searched` has found it."""
    return f"{stage}_for_{searched}"


def check_axis(
    dotted: str, axis: Dimension, base: TrainableConfig, parameter: str, errors: ErrorList
) -> None:
    """Check that both ends of a range, and every choice, are values that the stage could have.

    dotted: the key of the axis; base: the stage's configuration as written.
    """
    model = type(base)
    fixed = (*_FIXED, *ONLY_LOOKS)
    if parameter in fixed:
        errors.add(dotted, f"{parameter!r} is the same in every trial: it cannot be searched")
        return
    if parameter not in model.model_fields:
        allowed = [field for field in model.model_fields if field not in fixed]
        errors.add(dotted, f"unknown key{suggestion(parameter, allowed, 'keys')}")
        return
    kind = number_type(model, parameter)
    if axis.choice is None and kind is None:
        errors.add(dotted, f"{parameter!r} is not a number: give it `choice: [...]`")
    elif axis.choice is None and kind is int and not axis.whole:
        errors.add(
            dotted, f"{parameter!r} takes whole numbers: so must its range, not {axis.ends()}"
        )
    elif parameter == "select" and "auto" in (axis.choice or ()):
        errors.add(dotted, "'auto' is settled before a search begins: name `knn`, `last` or `loss`")
    else:
        for value in axis.ends_of(kind):
            value_errors = ErrorList()
            value_errors.validate(model, {**base.model_dump(), parameter: typed(kind, value)})
            for line in value_errors.lines:
                errors.add(dotted, line.removeprefix(f"{parameter}: "))


def number_type(model: type[TrainableConfig], parameter: str) -> Kind:
    """Return `int` or `float` for a parameter that is a number, else None."""
    annotation = model.model_fields[parameter].annotation
    kinds = typing.get_args(annotation) or (annotation,)
    bare = [typing.get_args(kind)[0] if typing.get_args(kind) else kind for kind in kinds]
    return next((kind for kind in (int, float) if kind in bare), None)
