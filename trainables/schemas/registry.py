"""The trainables and producers a study may name. To add one: write its schema here and its code in
`trainables/tasks/`, two files of its name, and add one line here."""

from trainables.metrics import PROBES
from trainables.schemas.byol import ByolSchema
from trainables.schemas.classify import ClassifySchema
from trainables.schemas.producer import ProducerSchema
from trainables.schemas.rotation import RotationSchema
from trainables.schemas.sam import SamSchema
from trainables.schemas.segment import SegmentSchema
from trainables.schemas.trainable import TrainableSchema

TRAINABLE_SCHEMAS: dict[str, type[TrainableSchema]] = {
    "byol": ByolSchema,
    "classify": ClassifySchema,
    "rotation": RotationSchema,
    "segment": SegmentSchema,
}
PRODUCER_SCHEMAS: dict[str, type[ProducerSchema]] = {"sam": SamSchema}


def reported_metrics(name: str) -> list[str]:
    """Return the full names of the metrics that Runs of a trainable or producer report."""
    if name in PRODUCER_SCHEMAS:
        return list(PRODUCER_SCHEMAS[name].FIGURES)
    schema = TRAINABLE_SCHEMAS[name]
    tested = [f"{part}/{figure}" for part in ("val", "test") for figure in schema.FIGURES]
    return ["train/loss", *tested, *(PROBES if schema.PROBED else ())]
