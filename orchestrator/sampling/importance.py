"""Estimate how much each parameter of a search matters."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.sampling.contract import SearchSpace
from orchestrator.sampling.optuna_study import OptunaStudy
from trainables.metrics import Mode

_LEAST = 10  # configurations; with fewer an importance would be a guess
_LEAST_PER_PARAMETER = 3


def importance(
    space: SearchSpace,
    mode: Mode,
    seed: int,
    observations: Sequence[tuple[Mapping[str, Any], float]],
) -> dict[str, float]:
    """Return the share of the figures' variance that each parameter explains; they sum to 1.

    The estimate is fANOVA (Hutter et al., ICML 2014). Returns nothing for fewer than ten
    observations, or three a parameter, and where all figures are the same.

    observations: configurations, and the finite figure that each reached.
    """
    least = max(_LEAST, _LEAST_PER_PARAMETER * len(space.dimensions))
    if len(observations) < least or len({figure for _, figure in observations}) < 2:
        return {}
    import optuna.importance  # takes seconds: not when a study is read

    study = OptunaStudy(space, mode)
    for values, figure in observations:
        study.tell(values, figure)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    shares = optuna.importance.get_param_importances(study.study, evaluator=evaluator)
    return {name: float(share) for name, share in shares.items()}
