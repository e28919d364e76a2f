"""Draw where good figures were found: the Tree-structured Parzen Estimator (Bergstra et al.,
NeurIPS 2011)."""

from orchestrator.sampling.contract import Sampler, SearchSpace, Values
from orchestrator.sampling.optuna_study import OptunaStudy
from trainables.metrics import Mode


class TPE(Sampler):
    """Draws from Optuna's TPESampler, multivariate: at random until it knows ten figures."""

    def __init__(self, space: SearchSpace, mode: Mode, seed: int) -> None:
        super().__init__(space, mode, seed)
        self._study = OptunaStudy(space, mode)

    def propose(self, index: int, repeat: int) -> Values:
        """Return a configuration that depends on the seed, the index, the repeat and the figures
        told so far."""
        from optuna.samplers import TPESampler  # takes seconds: not when a study is read

        seed = self.seed_of(index, repeat)
        return self._study.propose(TPESampler(seed=seed, multivariate=True))

    def tell(self, values: Values, figure: float) -> None:
        """Learn the figure that a configuration reached."""
        self._study.tell(values, figure)
