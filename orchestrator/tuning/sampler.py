"""Which configuration a search tries next. Every draw is counted by the search's seed and the
trial's number, so that a search that was broken off goes on as if it had not been."""

import itertools
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from orchestrator.config.search_schema import Dimension, Kind, Search, typed
from trainables.numerics.randomness import derived_seed

Values = dict[str, Any]
_LEAST_TOLD = 10  # trials below which an importance would be a guess
_REPEATS = 200  # draws in a row that were all tried before


class Sampler:
    """Draws configurations, and learns from how they fared where the algorithm does (TPE:
    Bergstra et al., NeurIPS 2011; Optuna's implementation)."""

    def __init__(self, search: Search, kinds: Mapping[str, Kind], seed: int) -> None:
        """kinds: of every parameter of the space."""
        self.search, self.kinds, self.seed = search, kinds, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize" if search.mode == "max" else "minimize"
        )
        self._axes = {name: self._distribution(name) for name in search.space}
        self._tried: list[Values] = []

    def draw(self, index: int) -> Values | None:
        """The configuration of trial `index`; None when none is left that was not tried."""
        if self.search.algorithm == "grid":
            return next(itertools.islice(self.search.grid(), index, None), None)
        for repeat in range(_REPEATS):
            self._study.sampler = self._sampler(index, repeat)
            trial = self._study.ask(self._axes)
            values = {name: self._decoded(name, trial.params[name]) for name in self._axes}
            self._study.tell(trial, state=TrialState.FAIL)  # its figure comes as a trial of its own
            if values not in self._tried:
                self._tried.append(values)
                return values
        return None

    def known(self, values: Values) -> None:
        """A configuration that was drawn before, perhaps by a driver that is no more."""
        if values not in self._tried:
            self._tried.append(values)

    def tell(self, values: Mapping[str, Any], figure: float) -> None:
        """How a configuration fared. figure: the search's metric, finite."""
        self._study.add_trial(self._told(values, figure))

    def importance(self) -> dict[str, float]:
        """Share of the figure's variance that each parameter explains (fANOVA: Hutter et al., ICML
        2014), over what was told; empty where there is too little to say."""
        told = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        figures = {trial.value for trial in told}
        if len(told) < max(_LEAST_TOLD, 3 * len(self._axes)) or len(figures) < 2:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.seed)
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}

    def _sampler(self, index: int, repeat: int) -> BaseSampler:
        seed = derived_seed("search", self.seed, index, repeat) % 2**32
        if self.search.algorithm == "random":
            return RandomSampler(seed)
        return TPESampler(seed=seed, multivariate=True)

    def _distribution(self, name: str) -> BaseDistribution:
        axis = self.search.space[name]
        if axis.choice is not None:  # by place: a choice may be a list
            return CategoricalDistribution(range(len(axis.choice)))
        low, high = axis.bounds
        if self.kinds[name] is int:
            return IntDistribution(int(low), int(high), log=axis.log is not None)
        return FloatDistribution(low, high, log=axis.log is not None)

    def _decoded(self, name: str, drawn: Any) -> Any:
        axis = self.search.space[name]
        if axis.choice is not None:
            return typed(self.kinds[name], axis.choice[drawn])
        return axis.rounded(drawn, self.kinds[name] is int)

    def _told(self, values: Mapping[str, Any], figure: float) -> FrozenTrial:
        params = {name: _encoded(axis, values[name]) for name, axis in self.search.space.items()}
        return create_trial(params=params, distributions=self._axes, value=figure)


def _encoded(axis: Dimension, value: Any) -> Any:
    return value if axis.choice is None else axis.choice.index(value)
