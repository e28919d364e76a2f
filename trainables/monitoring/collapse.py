"""Whether the features of a Run have become all alike, and since when."""

from trainables.metrics import Epochs
from trainables.monitoring.probe import has_collapsed


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
