"""Translate between configurations and an Optuna study.

Reading a study file imports this module, and Optuna takes seconds to import: so Optuna is imported
where a study is built, and not at the top of any file of this room.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.sampling.contract import SearchSpace, Values
from orchestrator.sampling.dimension import typed
from trainables.metrics import Mode

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


class OptunaStudy:
    """An Optuna study in memory: proposes configurations and keeps the figures that it is told."""

    def __init__(self, space: SearchSpace, mode: Mode) -> None:
        import optuna  # takes seconds, see above

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._distributions = {name: _distribution(space, name) for name in space.dimensions}
        self.study: Study = optuna.create_study(
            direction="maximize" if mode == "max" else "minimize"
        )

    def propose(self, sampler: "BaseSampler") -> Values:
        """Return a configuration that an Optuna sampler draws, given what was told so far."""
        from optuna.trial import TrialState  # takes seconds, see above

        self.study.sampler = sampler
        trial = self.study.ask(self._distributions)
        # Optuna forgets this trial: its figure is told as a trial of its own, perhaps never
        self.study.tell(trial, state=TrialState.FAIL)
        return {name: self._decoded(name, trial.params[name]) for name in self._distributions}

    def tell(self, values: Mapping[str, Any], figure: float) -> None:
        """Add a configuration and the figure that it reached."""
        from optuna.trial import create_trial  # takes seconds, see above

        params = {name: self._encoded(name, values[name]) for name in self._distributions}
        trial = create_trial(params=params, distributions=self._distributions, value=figure)
        self.study.add_trial(trial)

    def _encoded(self, name: str, value: Any) -> Any:
        choice = self._space.dimensions[name].choice
        return value if choice is None else choice.index(value)

    def _decoded(self, name: str, drawn: Any) -> Any:
        dimension, kind = self._space.dimensions[name], self._space.kinds[name]
        if dimension.choice is not None:
            return typed(kind, dimension.choice[drawn])
        return dimension.rounded(drawn, kind is int)


def _distribution(space: SearchSpace, name: str) -> "BaseDistribution":
    """Return a dimension as Optuna's; a choice by its position, since its values may be lists."""
    from optuna import distributions  # takes seconds, see above

    dimension = space.dimensions[name]
    if dimension.choice is not None:
        return distributions.CategoricalDistribution(range(len(dimension.choice)))
    low, high = dimension.bounds
    log = dimension.log is not None
    if space.kinds[name] is int:
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)
