"""Decides which epoch of a history is the best, and whether training may end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainables.metrics import COLLAPSES, Epochs, Mode, metric_of

if TYPE_CHECKING:  # reading a history must not cost the import of torch
    from trainables.training_config import TrainableConfig


class AllCollapsed(Exception):
    """No epoch may be chosen, since the features have collapsed in each; the text is one line."""


def best_epoch(history: Epochs, metric: str, mode: Mode) -> int:
    """Return the number of the epoch with the best value, the earliest of equals, from 1.

    Epochs that lack the metric are not candidates, such as those without a probe. Neither are those
    that have collapsed, unless all have. Raises ValueError where no epoch has the metric.
    """
    sign = 1 if mode == "min" else -1
    measured = [entry for entry in history if metric in entry]
    if not measured:
        raise ValueError(f"none of {len(history)} epochs has {metric}")
    candidates = [entry for entry in measured if not _has_collapsed(entry)] or measured
    return int(min(candidates, key=lambda entry: (sign * entry[metric], entry["epoch"]))["epoch"])


def chosen_epoch(history: Epochs, metric: str, mode: Mode) -> int:
    """Return the epoch whose weights are tested and handed on: the best one. Raises AllCollapsed
    where no other one can be chosen."""
    epoch = best_epoch(history, metric, mode)
    if all(_has_collapsed(entry) for entry in history if metric in entry):
        raise AllCollapsed(
            f"no epoch can be chosen: the features have collapsed in each of {len(history)}: lower "
            "lr or raise target_momentum"
        )
    return epoch


def _has_collapsed(entry: Mapping[str, float]) -> bool:
    return any(entry.get(name) for name in COLLAPSES)


def has_ended(history: Epochs, config: "TrainableConfig") -> bool:
    """Return whether all epochs are done, or early stopping ends the training.

    Epochs without its metric do not count against patience: only the next one with it can show
    whether there was an improvement. Raises ValueError where `early_stopping` names no metric:
    `TrainableSchema.settled` gives the default.
    """
    stop, done = config.early_stopping, len(history)
    if done >= config.epochs:
        return True
    if stop is None:
        return False
    if stop.metric is None:
        raise ValueError("early_stopping has no metric: settle the configuration first")
    measured = [int(entry["epoch"]) for entry in history if stop.metric in entry]
    if not measured:
        return False
    best = best_epoch(history, stop.metric, metric_of(stop.metric).mode)
    return measured[-1] - best >= stop.patience
