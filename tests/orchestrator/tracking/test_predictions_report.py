"""What Runs predicted goes to MLflow with its figures, and a comparison is tested over images."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from orchestrator.storage.run_records import Store
from orchestrator.storage.tensors import save_arrays
from orchestrator.tracking.comparison_data import compared_tables
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.publisher import Publisher
from orchestrator.tracking.tags import Tag
from tests.orchestrator.reporting.test_comparison import record, spec
from tests.orchestrator.reporting.test_predictions import classified
from tests.orchestrator.tracking.test_run_states import planned
from trainables.record_files import PREDICTIONS


@pytest.fixture
def tracker(mlflow_uri: str) -> Tracker:
    return Tracker(mlflow_uri)


def send(tracker: Tracker, store: Store, label: str, predicted: list[int], how: str = "") -> str:
    """Publish a finished Run that has predicted so. Returns its MLflow run. how: `none` for a Run
    of an earlier version, `damaged` for a file that has changed since."""
    run = planned(label, key=label.lower() * 20)
    folder = store.run(run.key)
    writer = folder.writer(folder.begin_attempt())
    if how != "none":
        writer.put_optional(PREDICTIONS, partial(save_arrays, classified(predicted).arrays))
    if how == "damaged":
        os.truncate(folder.path / PREDICTIONS, 100)
    experiment = tracker.writer.experiment("study")
    run_id = tracker.writer.create_run(experiment, label, {"label": label})
    publisher = Publisher(tracker, store)
    result = {"best_epoch": 2, "history": [{"epoch": 1}, {"epoch": 2}], "facts": {},
              "test": {"test/accuracy": float(np.mean(classified(predicted).right))}}  # fmt: skip
    for _ in range(2):  # another process sends it again
        publisher._predictions(run, tracker.reader.run(run_id), 2, {})
        tracker.writer.log_epochs(run_id, [{"epoch": 2, **result["test"]}], {})
    return run_id


def test_predictions_and_their_figures_are_in_mlflow(tracker: Tracker, tmp_path: Path) -> None:
    run_id = send(tracker, Store(tmp_path / "store"), "A", [0, 1, 0, 0])
    run = tracker.reader.run(run_id)
    client = tracker.connection.api.client
    assert len(client.get_metric_history(run_id, "test/macro_f1")) == 1
    assert run.metrics["test/domain_accuracy/Art"] == 1.0
    assert run.metrics["test/class_accuracy/Cup-lid"] == 0.5
    assert (run.tags[Tag.PREDICTIONS], run.tags[Tag.TEST_IMAGES]) == (PREDICTIONS, "4")
    files = ["predictions/manifest.json", "predictions/test.npz"]
    assert sorted(tracker.reader.files(run_id, "predictions")) == files


@pytest.mark.parametrize("how", ["none", "damaged"])
def test_a_run_without_predictions_is_sent_without_them(
    tracker: Tracker, tmp_path: Path, how: str
) -> None:
    run = tracker.reader.run(send(tracker, Store(tmp_path / "store"), "A", [0, 1, 0, 0], how))
    assert run.metrics.keys() == {"test/accuracy"}
    assert Tag.PREDICTIONS not in run.tags


def test_pairs_of_runs_are_tested_over_the_images_that_mlflow_has(
    tracker: Tracker, tmp_path: Path
) -> None:
    store, facts = Store(tmp_path / "store"), {Tag.TEST_IMAGES: "4"}
    a = send(tracker, store, "A", [0, 1, 0, 1])
    b = send(tracker, store, "B", [0, 1, 1, 0])
    runs = [record("A", 0, 1.0, run_id=a, facts=facts), record("B", 0, 0.5, run_id=b, facts=facts)]
    runs += [record("A", 1, 1.0, run_id="gone"), record("B", 1, 0.5, run_id=b, facts=facts)]
    wanted = replace(spec(), differences=(("A", "B"),))
    (table,) = compared_tables(tracker.reader, runs, wanted)
    (difference,) = table.differences
    assert difference.images is not None
    assert (difference.images.seeds, difference.images.mean) == ((0,), 0.5)
    assert difference.unkept == ("A seed 1",)
    assert compared_tables(tracker.reader, runs, replace(wanted, metric="test/loss")) == []
