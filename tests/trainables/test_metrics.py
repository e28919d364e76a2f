"""Every metric that is reported is registered, with a direction, a unit and a label."""

import pytest

from trainables.metrics import (
    COLLAPSES,
    KNN,
    METRICS,
    PROBES,
    UnknownMetric,
    in_percent,
    initial,
    metric_of,
)
from trainables.schemas.registry import reported_metrics
from trainables.tasks.registry import PRODUCERS, TRAINABLES
from trainables.training_config import TrainableConfig


@pytest.mark.parametrize("name", [*TRAINABLES, *PRODUCERS])
def test_every_reported_metric_is_registered(name: str) -> None:
    reported = reported_metrics(name)
    assert reported
    assert {metric_of(metric).mode for metric in reported} <= {"min", "max"}


@pytest.mark.parametrize("name", TRAINABLES)
def test_the_metric_that_selects_is_reported_or_the_epoch(name: str) -> None:
    kind = TRAINABLES[name]
    assert kind.SELECT in reported_metrics(name)
    chosen = {kind.select({"select": choice}) for choice in ("loss", "last")}
    assert chosen <= {kind.SELECT, "epoch"}
    assert all(metric_of(metric).mode in ("min", "max") for metric in chosen)


@pytest.mark.parametrize("name", ["images_per_s", "input_wait_fraction", "gpu_hours"])
def test_system_figures_are_registered(name: str) -> None:
    assert metric_of(f"system/{name}") is METRICS[name]


def test_probes_and_the_default_of_early_stopping_are_registered() -> None:
    modes = {name: metric_of(name).mode for name in PROBES}
    assert [name for name, mode in modes.items() if mode == "min"] == [*COLLAPSES]
    assert metric_of(initial(KNN)) is metric_of(KNN) and initial(KNN) == "initial/knn_accuracy"
    stop = TrainableConfig.model_fields["early_stopping"].annotation
    assert "EarlyStopping" in str(stop) and metric_of("val/loss").mode == "min"


def test_a_class_s_iou_is_an_iou_whatever_the_class_is_called() -> None:
    assert metric_of("test/iou/loss") is METRICS["iou"]
    assert metric_of("val/iou/a/b") is METRICS["iou"]


def test_names_are_unique_and_every_metric_can_be_shown() -> None:
    assert [metric.name for metric in METRICS.values()] == list(METRICS)
    assert all(metric.label for metric in METRICS.values())
    assert in_percent("test/accuracy") and not in_percent("val/loss")


@pytest.mark.parametrize("name", ["val/acuracy", "val/", "", "iou/water"])
def test_an_unknown_metric_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UnknownMetric) as error:
        metric_of(name)
    assert str(error.value).startswith(f"no metric {name!r} (metrics: ")
    assert "\n" not in str(error.value)
