"""What the epochs of a Run say: which was best, whether it may end."""

from collections.abc import Mapping, Sequence

from trainables.config import TrainableConfig

Epochs = Sequence[Mapping[str, float]]  # one entry an epoch, with its number


def best_epoch(history: Epochs, metric: str, mode: str) -> int:
    """The epoch with the best value, the earliest of equals. Epochs count from 1."""
    sign = 1 if mode == "min" else -1
    return int(min(history, key=lambda entry: (sign * entry[metric], entry["epoch"]))["epoch"])


def mode_of(metric: str) -> str:
    """`min` of a loss, else `max`."""
    return "min" if metric.endswith("loss") else "max"


def has_ended(history: Epochs, config: TrainableConfig) -> bool:
    """Whether all epochs are done, or early stopping says so."""
    stop, done = config.early_stopping, len(history)
    if done >= config.epochs:
        return True
    if stop is None or not done:
        return False
    return done - best_epoch(history, stop.metric, mode_of(stop.metric)) >= stop.patience
