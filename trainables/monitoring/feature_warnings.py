"""Says what is wrong with the features of a Run: a collapse, or worse than before training."""

from trainables.metrics import (
    EFFECTIVE_RANK,
    EMBEDDING_COLLAPSED,
    EMBEDDING_STD,
    KNN,
    PROJECTION_COLLAPSED,
    PROJECTION_RANK,
    PROJECTION_STD,
    Epochs,
    initial,
)

_WATCHED = (
    ("embedding", EMBEDDING_COLLAPSED, EMBEDDING_STD, EFFECTIVE_RANK),
    ("projection", PROJECTION_COLLAPSED, PROJECTION_STD, PROJECTION_RANK),
)


def collapse_warning(history: Epochs) -> str:
    """Return one line about a collapse that the last measurement still sees; empty without one.

    A projection alone can collapse: then the loss is low and the encoder learns nothing more.
    """
    for what, flag, std, rank in _WATCHED:
        measured = [entry for entry in history if flag in entry]
        if not measured or not measured[-1][flag]:
            continue
        first = measured[-1]
        for entry in reversed(measured):
            if not entry[flag]:
                break
            first = entry
        return (
            f"the {what} has collapsed by epoch {int(first['epoch'])} (standard deviation "
            f"{first[std]:.2g}, effective rank {first[rank]:.1f})"
        )
    return ""


def below_initial_warning(history: Epochs, chosen: int) -> str:
    """Return one line where neighbors say that features are worse than before training, else "".

    chosen: the epoch whose weights are handed on; without a probe in it the one before counts.
    """
    probed = [entry for entry in history if KNN in entry and entry["epoch"] <= chosen]
    before = history[0].get(initial(KNN)) if history else None
    if not probed or before is None or probed[-1][KNN] >= before:
        return ""
    return (
        f"kNN {100 * probed[-1][KNN]:.1f} % (epoch {int(probed[-1]['epoch'])}) is below that of "
        f"the initial weights, {100 * before:.1f} %"
    )


def warnings_of(history: Epochs, chosen: int) -> str:
    """Return all that is wrong with the features, in one line; empty where nothing is. chosen: as
    in `below_initial_warning`."""
    lines = [collapse_warning(history), below_initial_warning(history, chosen)]
    return "; ".join(filter(None, lines))
