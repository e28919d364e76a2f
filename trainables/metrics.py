"""The metrics that Runs report: name, direction, unit and label, each said once.

A full name is `<split>/<metric>`, such as `val/accuracy`; a class's IoU is `<split>/iou/<class>`.
To add a metric: one line in METRICS, and its name in FIGURES of the trainables that report it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Epochs = Sequence[Mapping[str, float]]  # a history: one entry an epoch, its number under `epoch`
Mode = Literal["min", "max"]


class UnknownMetric(ValueError):
    """No metric of that name is registered; one line."""


@dataclass(frozen=True)
class Metric:
    """name: without its split; mode: which direction is better; unit: `%` for a share in [0, 1]
    that is shown in percent, else what one counts in, or empty; label: for tables and figures."""

    name: str
    mode: Mode
    unit: str
    label: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("loss", "min", "", "loss"),
        Metric("accuracy", "max", "%", "accuracy"),
        Metric("miou", "max", "%", "mean IoU"),
        Metric("iou", "max", "%", "IoU"),
        Metric("knn_accuracy", "max", "%", "kNN accuracy"),
        Metric("embedding_std", "max", "", "standard deviation of the embedding"),
        Metric("effective_rank", "max", "", "effective rank of the embedding"),
        Metric("masks", "max", "masks", "masks per image"),
        Metric("best_iou", "max", "%", "IoU of the best mask"),
        Metric("images_per_s", "max", "images/s", "speed"),
        Metric("input_wait_fraction", "min", "", "share of time waiting for input"),
        Metric("gpu_hours", "min", "h", "GPU hours"),
    )
}
LOSS = "train/loss"
KNN = "val/knn_accuracy"
PROBES = (KNN, "val/embedding_std", "val/effective_rank")  # reported by trainables that are probed


def metric_of(name: str) -> Metric:
    """The metric behind a full name. Raises UnknownMetric."""
    figure = name.partition("/")[2] or name
    metric = METRICS.get("iou" if figure.startswith("iou/") else figure)
    if metric is None:
        raise UnknownMetric(f"no metric {name!r} (metrics: {', '.join(METRICS)})")
    return metric


def in_percent(name: str) -> bool:
    """Whether a metric is a share in [0, 1] that is shown in percent."""
    return metric_of(name).unit == "%"
