"""The second report's settings in small, with the real command: pretraining, hand-offs, maps."""

import json

import pytest

from orchestrator.pages.pictures import VIEWS, files_of
from orchestrator.storage.run_records import Store

pytestmark = pytest.mark.slow

LABELS = {"supervised", "byol", "A", "B", "C", "D", "E", "R"}
FEW = [  # images of the study's own data set, epochs and seeds
    *(f"--set=stages.{stage}.config.epochs=2" for stage in sorted(LABELS - {"byol"})),
    *("--set", "stages.byol.config.epochs=4", "--set", "stages.byol.config.probe_every=1"),
    *("--set", "seeds=[0]"),
    *(f"--set=stages.{stage}.seeds=[0]" for stage in ("supervised", "A", "B", "C", "D")),
    *("--set", "data.pretrain={type: digits, limit: 300}"),
    *("--set", "data.target={type: digits, limit: 300}"),
]


@pytest.fixture(scope="module")
def small(command) -> dict:
    """Its Runs by label, once it has finished; on fewer images than the study itself."""
    result = command.run("submit", "byol_digits", *FEW)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "classify on target" in result.stdout
    return command.runs("byol_digits")


def test_every_setting_starts_from_what_it_says(small):
    assert small.keys() == LABELS
    assert {run["state"] for run in small.values()} == {"FINISHED"}
    starts = {label: run["weight_transfer"].partition(" from ")[2] for label, run in small.items()}
    assert starts["B"] == starts["D"] and starts["B"].startswith("supervised epoch")
    assert starts["C"] == starts["E"] and starts["C"].startswith("byol epoch")
    assert starts["A"] == starts["R"] and starts["A"].startswith("random initialisation")
    prints = {text.rpartition(" ")[2] for text in starts.values()}
    assert len(prints) == 3  # supervised's, byol's, and the random one of this seed


def test_mlflow_shows_curves_probes_and_maps(small, command):
    client = command.mlflow()
    run_id = small["byol"]["mlflow_run_id"]
    for name in ("val/knn_accuracy", "val/linear_accuracy", "val/projection_std"):
        steps = [point.step for point in client.get_metric_history(run_id, name)]
        assert steps == [1, 2, 3, 4], name
    assert client.get_metric_history(run_id, "initial/knn_accuracy")[0].value > 0
    for label, last in (("byol", 4), ("E", 2)):
        found = client.list_artifacts(small[label]["mlflow_run_id"], "plots")
        names = {item.path.removeprefix("plots/") for item in found}
        maps = {f"tsne_epoch{n}.{kind}" for n in (1, last) for kind in ("png", "html")}
        assert maps | {"loss.png"} <= names
    pictures = {item.path for item in client.list_artifacts(run_id, "images")}
    assert {f"images/{name}" for name in files_of(VIEWS, 1)} <= pictures
    models = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    assert {"byol-best", "E-best"} <= {model.name for model in models}


def test_one_figure_shows_every_loss_and_one_the_maps_of_the_settings(small, command):
    client = command.mlflow()
    parent = client.get_run(small["E"]["mlflow_run_id"]).data.tags["mlflow.parentRunId"]
    names = {item.path for item in client.list_artifacts(parent, "plots")}
    assert names == {f"plots/{name}.png" for name in ("bars", "curves", "loss", "tsne")}


def test_the_comparison_is_of_the_five_settings_and_a_random_encoder(small, command):
    rows = json.loads(command.ask("compare", "byol_digits", "--json").stdout)["rows"]
    assert [row["label"] for row in rows] == ["A", "B", "C", "D", "E", "R"]
    assert all(0 <= row["mean"] <= 1 for row in rows)


def test_a_backbone_that_comes_as_a_file_replaces_the_training_of_its_stage(small, command):
    store = Store(command.home / "store")
    file = store.run(small["supervised"]["key"]).best().weights
    setting = f"stages.supervised.weights={file}"
    plan = command.ask("plan", "byol_digits", *FEW, "--set", setting, "--json")
    assert plan.returncode == 0, plan.stderr
    planned = {item["label"]: item for item in json.loads(plan.stdout)}
    assert planned.keys() == LABELS - {"supervised"}
    assert planned["A"]["state"] == planned["E"]["state"] == "done"
    assert planned["D"]["state"] == "new" and len(planned["D"]["weights"]) == 64
    shown = command.ask("plan", "byol_digits", *FEW, "--set", setting).stdout
    assert planned["D"]["weights"][:12] in " ".join(shown.split())
