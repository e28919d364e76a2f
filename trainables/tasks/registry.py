"""The trainables and producers a study may name. To add one: write its file, add one line here."""

from trainables.metrics import PROBES
from trainables.producer import Producer
from trainables.tasks.byol import Byol
from trainables.tasks.classify import Classify
from trainables.tasks.rotation import Rotation
from trainables.tasks.sam import SamMasks
from trainables.tasks.segment import Segment
from trainables.trainable import Trainable

TRAINABLES: dict[str, type[Trainable]] = {
    "byol": Byol,
    "classify": Classify,
    "rotation": Rotation,
    "segment": Segment,
}
PRODUCERS: dict[str, type[Producer]] = {"sam": SamMasks}


def reported_metrics(name: str) -> list[str]:
    """Return the full names of the metrics that Runs of a trainable or producer report."""
    if name in PRODUCERS:
        return list(PRODUCERS[name].FIGURES)
    kind = TRAINABLES[name]
    tested = [f"{part}/{figure}" for part in ("val", "test") for figure in kind.FIGURES]
    return ["train/loss", *tested, *(PROBES if kind.PROBED else ())]
