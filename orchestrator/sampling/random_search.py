"""Draw every configuration at random (Bergstra and Bengio, JMLR 2012)."""

from orchestrator.sampling.contract import Sampler, SearchSpace, Values
from orchestrator.sampling.optuna_study import OptunaStudy
from trainables.metrics import Mode


class RandomSearch(Sampler):
    """Draws from Optuna's RandomSampler, with a seed of its own for every trial."""

    def __init__(self, space: SearchSpace, mode: Mode, seed: int) -> None:
        super().__init__(space, mode, seed)
        self._study = OptunaStudy(space, mode)

    def propose(self, index: int, repeat: int) -> Values:
        """Return a configuration that depends on the seed, the index and the repeat alone."""
        from optuna.samplers import RandomSampler  # takes seconds: not when a study is read

        return self._study.propose(RandomSampler(self.seed_of(index, repeat)))
