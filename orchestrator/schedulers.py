"""What Ray Tune is set up with: which trials it stops early, and what it keeps quiet."""

from ray.tune.execution import class_cache
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.search_file import Search


def keep_secrets() -> None:
    """Ray Tune would write the driver's AWS keys into the description of every trial's process, and
    so into Ray's logs; a process has them from its own node, where it needs them."""
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied -= {name for name in copied if name.startswith("AWS_")}


def scheduler_of(search: Search, epochs: int) -> TrialScheduler:
    """Ray Tune's own. epochs: of the longest trial.

    asha: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020).
    median: Golovin et al., "Google Vizier" (KDD 2017).
    """
    if search.scheduler == "asha":
        return AsyncHyperBandScheduler(
            time_attr="epoch",
            max_t=epochs,
            grace_period=min(search.grace_epochs, epochs),
            reduction_factor=search.reduction_factor,
        )
    if search.scheduler == "median":
        return MedianStoppingRule(
            time_attr="epoch", grace_period=search.grace_epochs, min_samples_required=3
        )
    return FIFOScheduler()
