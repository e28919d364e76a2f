"""The trainables and producers a study may name. To add one: write its schema here and its code in
`trainables/tasks/`, two files of its name, and add one line here. A user's own trainable needs
neither: it is looked up as `module:Name`, and its class is its own schema."""

from typing import Any

from trainables.metrics import PROBES, Metric, add_own
from trainables.own_code.names import WithOwn, is_own
from trainables.schemas.byol import ByolSchema
from trainables.schemas.classify import ClassifySchema
from trainables.schemas.producer import ProducerSchema
from trainables.schemas.rotation import RotationSchema
from trainables.schemas.sam import SamSchema
from trainables.schemas.segment import SegmentSchema
from trainables.schemas.trainable import TrainableSchema


def with_own_metrics(kind: Any, name: str) -> Any:
    """Register the metrics of an own trainable; return it. name: `module:Name`. Raises TypeError
    where it is no class."""
    if not isinstance(kind, type):
        raise TypeError(f"{name} is no class")
    add_own(getattr(kind, "METRICS", ()))
    return kind


TRAINABLE_SCHEMAS: WithOwn[type[TrainableSchema]] = WithOwn(
    {
        "byol": ByolSchema,
        "classify": ClassifySchema,
        "rotation": RotationSchema,
        "segment": SegmentSchema,
    },
    with_own_metrics,
)
PRODUCER_SCHEMAS: dict[str, type[ProducerSchema]] = {"sam": SamSchema}


def own_metrics(name: str) -> tuple[Metric, ...]:
    """Return the metrics that an own trainable brings along; none for another name."""
    return tuple(getattr(TRAINABLE_SCHEMAS[name], "METRICS", ())) if is_own(name) else ()


def reported_metrics(name: str) -> list[str]:
    """Return the full names of the metrics that Runs of a trainable or producer report."""
    if name in PRODUCER_SCHEMAS:
        return list(PRODUCER_SCHEMAS[name].FIGURES)
    schema = TRAINABLE_SCHEMAS[name]
    tested = [f"{part}/{figure}" for part in ("val", "test") for figure in schema.FIGURES]
    return ["train/loss", *tested, *(PROBES if schema.PROBED else ())]
