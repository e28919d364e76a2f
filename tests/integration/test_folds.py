"""A study whose seeds are the folds of a cross-validation, with the real command: every image is
tested once, a child starts from the parent of its fold, and the comparison is over folds."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.reporting.predictions import read_predictions
from orchestrator.statistics.intervals import mean_interval, overlap_of_folds
from trainables.record_files import PREDICTIONS

pytestmark = pytest.mark.slow
FOLDS = """
study: {name}
question: Does pretraining help, over folds?
data: {{digits: {{type: digits, folds: 3}}}}
resources: {{cpus_per_worker: 1}}
stages:
  rotation: {{trainable: rotation, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 64, lr: {lr}}}}}
  tuned: {{trainable: classify, after: rotation, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 64, lr: {lr}}}}}
  scratch: {{trainable: classify, config: {{dataset: digits, backbone: resnet10_slim, small_input: true, epochs: {epochs}, batch_size: 64, lr: {lr}}}}}
seeds: [0, 1, 2]
compare: {{metric: test/accuracy, differences: [[tuned, scratch]], plots: [bars]}}
"""  # noqa: E501


def test_seeds_are_folds_from_the_plan_to_the_comparison(command, tmp_path: Path):
    study = command.study("folds", form=FOLDS)
    planned = command.ask("plan", study)
    assert "digits: the Run of seed s tests fold s mod 3, and learns from the others" in (
        planned.stdout
    )
    result = command.run("submit", study)
    assert result.returncode == 0, result.stdout + result.stderr
    shown = " ".join(command.ask("compare", "folds").stdout.split())
    assert "Each seed tests another fold of the data set, so each mean is over folds." in shown
    assert (
        "The test sets of 3 folds have together 1,797 images" in shown and "with 3 folds" in shown
    )
    compared = json.loads(command.ask("compare", "folds", "--json").stdout)
    assert [(row["label"], row["n"]) for row in compared["rows"]] == [("tuned", 3), ("scratch", 3)]
    (gain,) = compared["gains"]
    assert gain["images"]["n"] == 1797

    client = command.mlflow()
    (found,) = [item for item in command.status()["studies"] if item["study"] == "folds"]
    runs = [client.get_run(run["mlflow_run_id"]) for run in found["runs"]]
    labelled = {(run.data.params["seed"], run.data.params["dataset"]) for run in runs}
    assert labelled == {(str(k), f"digits[folds=3,fold={k}]") for k in range(3)}
    scratch = [run for run in runs if run.info.run_name.startswith("scratch")]
    tested = []
    for run in scratch:
        file = client.download_artifacts(run.info.run_id, PREDICTIONS, str(tmp_path))
        tested += list(read_predictions(Path(file)).arrays["rows"])
    assert sorted(tested) == list(range(1797))
    values = [run.data.metrics["test/accuracy"] for run in scratch]
    row = compared["rows"][1]
    assert row["mean"] == pytest.approx(np.mean(values))
    interval = mean_interval(values, overlap=overlap_of_folds(3))
    assert interval and row["low"] == pytest.approx(max(0.0, interval.low))
