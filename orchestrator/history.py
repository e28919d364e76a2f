"""What the epochs of a Run say: which was best, whether it may end, what to warn of."""

from collections.abc import Mapping, Sequence

from trainables.config import TrainableConfig
from trainables.probe import has_collapsed

Epochs = Sequence[Mapping[str, float]]  # one entry an epoch, with its number


def best_epoch(history: Epochs, metric: str, mode: str) -> int:
    """The epoch with the best value, the earliest of equals. Epochs count from 1."""
    sign = 1 if mode == "min" else -1
    return int(min(history, key=lambda entry: (sign * entry[metric], entry["epoch"]))["epoch"])


def has_ended(history: Epochs, config: TrainableConfig) -> bool:
    """Whether all epochs are done, or early stopping says so."""
    stop, done = config.early_stopping, len(history)
    if done >= config.epochs:
        return True
    if stop is None or not done:
        return False
    mode = "min" if stop.metric.endswith("loss") else "max"
    return done - best_epoch(history, stop.metric, mode) >= stop.patience


def warning(history: Epochs, width: int) -> str:
    """One line on a collapse that probes have seen and that has not gone since; else empty. width:
    D of the features."""
    seen = [entry for entry in history if "val/embedding_std" in entry]
    if not seen or not has_collapsed(seen[-1], width):
        return ""
    first = seen[-1]
    for entry in reversed(seen):
        if not has_collapsed(entry, width):
            break
        first = entry
    return (
        f"the embedding has collapsed by epoch {int(first['epoch'])} (standard deviation "
        f"{first['val/embedding_std']:.2g}, effective rank {first['val/effective_rank']:.1f})"
    )
