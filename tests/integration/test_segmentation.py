"""Both networks on the embedded scenes, with the real command: figures, strips, every class, a
grid of all, and masks for a picture of one's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(command) -> dict:
    """Its Runs by label, once it has finished; fewer images than the study itself."""
    change = ("--set", "data.scenes.limit=16")
    result = command.run("submit", "segmentation_digits", *change)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "test IoU of each class (%)" in result.stdout
    again = command.run("submit", "segmentation_digits", *change)
    assert again.returncode == 0 and "nothing to train" in again.stdout
    return command.runs("segmentation_digits")


def artifacts(command, run: dict, folder: str) -> set[str]:
    listed = command.mlflow().list_artifacts(run["mlflow_run_id"], folder)
    return {item.path.removeprefix(f"{folder}/") for item in listed}


def test_both_networks_are_compared_by_mean_iou(small, command):
    rows = json.loads(command.run("compare", "segmentation_digits", "--json").stdout)
    assert [row["label"] for row in rows] == ["fcn32s", "deeplabv3"]
    assert all(row["metric"] == "test/miou" and 0 < row["mean"] < 1 for row in rows)


def test_mlflow_shows_masks_confusion_model_and_every_class(small, command):
    for label in ("fcn32s", "deeplabv3"):
        metrics = command.mlflow().get_run(small[label]["mlflow_run_id"]).data.metrics
        classes = ("photograph", "zero", "one", "seven")
        assert {f"test/iou/{name}" for name in classes} <= set(metrics)
        masks = artifacts(command, small[label], "masks")
        drawn = {name for name in masks if name.endswith(("_epoch1.png", "_epoch2.png"))}
        assert len(drawn) == 4 and masks == drawn | {"last.npz"}
        plots = artifacts(command, small[label], "plots")
        assert {"confusion.png", "architecture.svg", "architecture.png"} <= plots
        assert artifacts(command, small[label], "tables") == {"architecture.txt"}


def test_all_predictions_stand_side_by_side(small, command):
    run = command.mlflow().get_run(small["fcn32s"]["mlflow_run_id"])
    parent = {"mlflow_run_id": run.data.tags["mlflow.parentRunId"]}
    assert {"bars.png", "curves.png", "loss.png", "masks.png"} <= artifacts(
        command, parent, "plots"
    )


def test_a_picture_of_ones_own_gets_a_mask_of_its_size(small, command, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "mine.png")
    given = ("segmentation_digits/deeplabv3/0", str(tmp_path / "mine.png"))
    refused = command.run("predict", *given)
    assert refused.returncode == 2 and "--out DIR" in refused.stderr
    result = command.run("predict", *given, "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out" / "mine_mask.png") as mask:
        assert mask.mode == "P" and mask.size == (70, 50) and np.asarray(mask).max() < 4
    with Image.open(tmp_path / "out" / "mine_overlay.png") as overlay:
        assert overlay.size == (70, 50)
