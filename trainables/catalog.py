"""The trainables a study may name. To add one: write its file, add one line here."""

from trainables.byol import Byol
from trainables.classify import Classify
from trainables.rotation import Rotation
from trainables.segment import Segment
from trainables.trainable import PROBES, Trainable

TRAINABLES: dict[str, type[Trainable]] = {
    "byol": Byol,
    "classify": Classify,
    "rotation": Rotation,
    "segment": Segment,
}


def reported_metrics(trainable: str) -> list[str]:
    """Names of the metrics that Runs of a trainable report."""
    kind = TRAINABLES[trainable]
    every = [f"{part}/{figure}" for part in ("val", "test") for figure in kind.FIGURES]
    return ["train/loss", *every, *(PROBES if kind.PROBED else ())]
