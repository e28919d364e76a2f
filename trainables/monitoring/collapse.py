"""Detects that the features of a Run have collapsed to one point, and since which epoch."""

from trainables.metrics import EFFECTIVE_RANK, EMBEDDING_STD, Epochs
from trainables.monitoring.probe import looks_collapsed


def collapse_warning(history: Epochs, width: int) -> str:
    """Return one line about a collapse that the last probe still sees; empty without one.

    width: number of dimensions of the features.
    """
    probed = [entry for entry in history if EMBEDDING_STD in entry]
    if not probed or not looks_collapsed(probed[-1], width):
        return ""
    first = probed[-1]
    for entry in reversed(probed):
        if not looks_collapsed(entry, width):
            break
        first = entry
    return (
        f"the embedding has collapsed by epoch {int(first['epoch'])} (standard deviation "
        f"{first[EMBEDDING_STD]:.2g}, effective rank {first[EFFECTIVE_RANK]:.1f})"
    )
