"""Decides which epoch of a history is the best, and whether training may end."""

from typing import TYPE_CHECKING

from trainables.metrics import Epochs, Mode, metric_of

if TYPE_CHECKING:  # reading a history must not cost the import of torch
    from trainables.training_config import TrainableConfig


def best_epoch(history: Epochs, metric: str, mode: Mode) -> int:
    """Return the number of the epoch with the best value, the earliest of equals, from 1."""
    sign = 1 if mode == "min" else -1
    return int(min(history, key=lambda entry: (sign * entry[metric], entry["epoch"]))["epoch"])


def has_ended(history: Epochs, config: "TrainableConfig") -> bool:
    """Return whether all epochs are done, or early stopping ends the training."""
    stop, done = config.early_stopping, len(history)
    if done >= config.epochs:
        return True
    if stop is None or not done:
        return False
    return done - best_epoch(history, stop.metric, metric_of(stop.metric).mode) >= stop.patience
