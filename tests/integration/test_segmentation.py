"""Both networks and segment-anything on the embedded scenes, with the real command: figures,
strips, every class, a grid of all, and masks for a picture of one's own."""

import json
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from tests.integration.serving import ask, served
from tests.trainables.tasks.test_sam import EVERYTHING, photograph, small_sam

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(command, tmp_path_factory) -> dict:
    """Its Runs by label, once it has finished; fewer images than the study itself, less work for
    each, and a stage more."""
    weights = small_sam(tmp_path_factory.mktemp("sam") / "small.pth")
    config = {"dataset": "scenes", "images": "watched", "weights": str(weights), **EVERYTHING}
    stage = json.dumps({"producer": "sam", "config": config})
    settings = (
        "data.scenes.scenes.number=60",
        "data.scenes.limit=16",
        "stages.fcn32s.config.epochs=2",
        "stages.deeplabv3.config.epochs=2",
        f"stages.sam={stage}",
    )
    change = [word for setting in settings for word in ("--set", setting)]
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
    rows = json.loads(command.ask("compare", "segmentation_digits", "--json").stdout)["rows"]
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


def test_sam_has_looked_at_the_watched_images_and_all_stand_side_by_side(small, command):
    run = small["sam"]
    assert run["state"] == "FINISHED" and run["epoch"] == 2  # images
    watched = {name.partition("_epoch")[0] for name in artifacts(command, small["fcn32s"], "masks")}
    watched.discard("last.npz")
    files = artifacts(command, run, "sam")
    assert files == {f"{n}{end}" for n in watched for end in (".json", ".png")} | {"manifest.json"}
    metrics = command.mlflow().get_run(run["mlflow_run_id"]).data.metrics
    assert metrics["sam/masks"] >= 1 and 0 < metrics["sam/best_iou"] <= 1
    parent = command.mlflow().get_run(run["mlflow_run_id"]).data.tags["mlflow.parentRunId"]
    assert "masks.png" in artifacts(command, {"mlflow_run_id": parent}, "plots")


def test_a_picture_of_ones_own_gets_a_mask_of_its_size(small, command, tmp_path: Path):
    Image.fromarray(photograph(50, 70)).save(tmp_path / "mine.png")
    given = ("segmentation_digits/deeplabv3/0", str(tmp_path / "mine.png"))
    refused = command.run("predict", *given)
    assert refused.returncode == 2 and "--out DIR" in refused.stderr
    result = command.run("predict", *given, "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out" / "mine_mask.png") as mask:
        assert mask.mode == "P" and mask.size == (70, 50) and np.asarray(mask).max() < 4
    with Image.open(tmp_path / "out" / "mine_overlay.png") as overlay:
        assert overlay.size == (70, 50)
    refused = command.run("predict", "segmentation_digits/sam/0", given[1])
    assert refused.returncode == 1 and "has no model" in refused.stderr


def test_the_best_model_is_served_and_answers_with_a_mask(small, command, tmp_path: Path):
    uri = command.status()["mlflow"]["tracking_uri"]
    client = MlflowClient(uri, registry_uri=uri)
    version = client.get_model_version_by_alias("segmentation_digits.fcn32s", "best")
    Image.fromarray(photograph(50, 70)).save(tmp_path / "new.jpg")
    with served(version.description, tmp_path / "serve.log") as code:
        (mask,) = ask(code, tmp_path)
    given = ("segmentation_digits/fcn32s/0", str(tmp_path / "new.jpg"))
    assert command.run("predict", *given, "--out", str(tmp_path)).returncode == 0
    with Image.open(tmp_path / "new_mask.png") as expected:
        assert np.array_equal(np.asarray(mask), np.asarray(expected))
