"""The trainables a study may name. To add one: write its file, add one line here."""

from trainables.classify import Classify
from trainables.rotation import Rotation
from trainables.trainable import Trainable

TRAINABLES: dict[str, type[Trainable]] = {
    "classify": Classify,
    "rotation": Rotation,
}


def reported_metrics(trainable: str) -> list[str]:
    """Names of the metrics that Runs of a trainable report."""
    figures = TRAINABLES[trainable].FIGURES
    return ["train/loss", *(f"{part}/{figure}" for part in ("val", "test") for figure in figures)]
