"""Registers the metrics that Runs report: name, direction, unit and label, each stated once.

A full name is `<split>/<metric>`, such as `val/accuracy`. That of one class or domain has its name
as a third part: `val/iou/water`.
To add a metric: add one line to METRICS, and its name to FIGURES of the trainables that report it.
A trainable of a user's own brings its metrics along (`METRICS` of its class, see `add_own`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Epochs = Sequence[Mapping[str, float]]  # one entry per epoch; its number, from 1, is `epoch`
Mode = Literal["min", "max"]


class UnknownMetric(ValueError):
    """No metric of that name is registered. The text is one line that lists those there are."""


@dataclass(frozen=True)
class Metric:
    """Describes a metric.

    name: without its split; mode: which direction is better; unit: `%` for a share in [0, 1] that
    is shown in percent, else what the value is counted in, or empty; label: for tables and figures.
    """

    name: str
    mode: Mode
    unit: str
    label: str


METRICS = {
    metric.name: metric
    for metric in (
        Metric("epoch", "max", "", "epoch"),  # as a selection: the last epoch
        Metric("loss", "min", "", "loss"),
        Metric("accuracy", "max", "%", "accuracy"),
        Metric("top5_accuracy", "max", "%", "accuracy of the best five"),
        Metric("macro_f1", "max", "%", "macro F1"),
        Metric("balanced_accuracy", "max", "%", "balanced accuracy"),
        Metric("calibration_error", "min", "%", "expected calibration error"),
        Metric("class_accuracy", "max", "%", "accuracy"),
        Metric("domain_accuracy", "max", "%", "accuracy"),
        Metric("miou", "max", "%", "mean IoU"),
        Metric("iou", "max", "%", "IoU"),
        Metric("knn_accuracy", "max", "%", "kNN accuracy"),
        Metric("linear_accuracy", "max", "%", "accuracy of a linear probe"),
        Metric("embedding_std", "max", "", "standard deviation of the embedding"),
        Metric("effective_rank", "max", "", "effective rank of the embedding"),
        Metric("embedding_collapsed", "min", "", "whether the embedding has collapsed (1: yes)"),
        Metric("projection_std", "max", "", "standard deviation of the projection"),
        Metric("projection_rank", "max", "", "effective rank of the projection"),
        Metric("projection_collapsed", "min", "", "whether the projection has collapsed (1: yes)"),
        Metric("masks", "max", "masks", "masks per image"),
        Metric("best_iou", "max", "%", "IoU of the best mask"),
        Metric("head_lr", "max", "", "learning rate of the chosen head"),
        Metric("images_per_s", "max", "images/s", "speed"),
        Metric("input_wait_fraction", "min", "", "share of time waiting for input"),
        Metric("skipped_steps", "min", "", "steps left out (float16)"),
        Metric("gpu_hours", "min", "h", "GPU hours"),
        Metric("cpu_cores", "max", "cores", "CPU cores in use"),
        Metric("memory_mb", "min", "MB", "memory"),
        Metric("gpu_utilization", "max", "%", "time in which the GPU was busy"),
        Metric("gpu_memory_mb", "min", "MB", "GPU memory"),
    )
}
_BUILT_IN = frozenset(METRICS)
# Follow from what a classifier predicts of each test image: a Run has them as `test/<name>`
OF_PREDICTIONS = (
    "top5_accuracy", "macro_f1", "balanced_accuracy", "calibration_error", "class_accuracy",
    "domain_accuracy",
)  # fmt: skip
OF_PARTS = ("iou", "class_accuracy", "domain_accuracy")  # one value for each class or domain
LOSS = "train/loss"
KNN, LINEAR = "val/knn_accuracy", "val/linear_accuracy"  # measured every `probe_every` epochs
EMBEDDING_STD, EFFECTIVE_RANK = "val/embedding_std", "val/effective_rank"
EMBEDDING_COLLAPSED = "val/embedding_collapsed"
PROJECTION_STD, PROJECTION_RANK = "val/projection_std", "val/projection_rank"
PROJECTION_COLLAPSED = "val/projection_collapsed"
PROBES = (
    KNN, LINEAR, EMBEDDING_STD, EFFECTIVE_RANK, EMBEDDING_COLLAPSED,
    PROJECTION_STD, PROJECTION_RANK, PROJECTION_COLLAPSED,
)  # reported by trainables that are probed; those after LINEAR in every epoch  # fmt: skip
COLLAPSES = (EMBEDDING_COLLAPSED, PROJECTION_COLLAPSED)  # 1 in an epoch that is never chosen
INITIAL = "initial"  # split of what was measured before the first epoch: `initial/knn_accuracy`


def add_own(metrics: Iterable[Metric]) -> None:
    """Register metrics of own code in this process. Those of one name are replaced, as own code
    may change in a notebook. Raises ValueError for a name that this package gives another meaning.
    """
    for metric in metrics:
        if metric.name in _BUILT_IN and METRICS[metric.name] != metric:
            raise ValueError(f"{metric.name!r} is a metric already: choose another name")
        METRICS[metric.name] = metric


def initial(name: str) -> str:
    """Return the name of a figure of the weights before training: val/loss → initial/loss."""
    return f"{INITIAL}/{name.partition('/')[2]}"


def metric_of(name: str) -> Metric:
    """Return the metric with this full name, such as `val/iou/water`. Raises UnknownMetric."""
    figure = name.partition("/")[2] or name
    first = figure.partition("/")[0]
    metric = METRICS.get(first if first in OF_PARTS else figure)
    if metric is None:
        raise UnknownMetric(f"no metric {name!r} (metrics: {', '.join(METRICS)})")
    return metric


def in_percent(name: str) -> bool:
    """Return whether a metric is a share in [0, 1] that is shown in percent."""
    return metric_of(name).unit == "%"
