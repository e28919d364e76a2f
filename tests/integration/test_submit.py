"""Studies submitted with the real command to a real Ray head and a real MLflow server."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from tests.integration.command import ALONE, HANGS, Command, wait_for


def test_submit_prints_plan_addresses_progress_and_table(finished, command):
    out = finished.stdout
    assert "first time" in out and "http://127.0.0.1" in out and "ray_token" in out
    assert "late seed 0: finished" in out and "test/accuracy (%)" in out and "50.00" in out
    token = (command.home / "ray_token").read_text()
    assert token not in out + finished.stderr


def test_the_same_submit_again_trains_nothing(finished, command):
    before = command.runs("tiny")
    again = command.run("submit", command.study("tiny"), "--json")
    assert again.returncode == 0
    assert "nothing to train" in again.stderr
    assert {row["label"] for row in json.loads(again.stdout)["rows"]} == {"late", "full"}
    assert command.runs("tiny") == before


def test_status_has_the_agreed_form(finished, command):
    status = command.status()
    assert status["mlflow"]["tracking_uri"].startswith("http://127.0.0.1:")
    assert status["ray"].keys() == {"address", "dashboard_url", "token_path"}
    run = command.runs("tiny")["rotation"]
    wanted = {"stage", "label", "seed", "key", "state", "epoch", "mlflow_run_id"}
    assert wanted <= run.keys()
    assert (run["state"], run["epoch"]) == ("FINISHED", 2)


def test_compare_needs_no_study_file_and_has_the_agreed_form(finished, command):
    rows = json.loads(command.run("compare", "tiny", "--json").stdout)["rows"]
    assert [row["label"] for row in rows] == ["late", "full"]
    for row in rows:
        assert row.keys() >= {"stage", "label", "metric", "n", "mean", "std", "reference"}
        assert row["n"] == 1 and row["std"] is None and 0 <= row["mean"] <= 1
    assert rows[0]["reference"] == 0.5


def test_mlflow_holds_a_tree_of_runs_with_exact_steps(finished, command):
    client = command.mlflow()
    run = client.get_run(command.runs("tiny")["late"]["mlflow_run_id"])
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.data.tags["orchestrator.kind"] == "submission"
    assert parent.info.status == run.info.status == "FINISHED"
    assert run.data.tags["orchestrator.parent_keys"] == command.runs("tiny")["rotation"]["key"]
    assert "encoder tensors from rotation" in run.data.tags["orchestrator.weight_transfer"]
    rotation = command.runs("tiny")["rotation"]["mlflow_run_id"]
    steps = [point.step for point in client.get_metric_history(rotation, "train/loss")]
    assert steps == [1, 2]
    assert run.data.params["train"] == "late"


def test_mlflow_holds_plots_tables_config_and_models(finished, command):
    client = command.mlflow()
    run = client.get_run(command.runs("tiny")["late"]["mlflow_run_id"])
    files = {item.path for item in client.list_artifacts(run.info.run_id, "plots")}
    maps = {"plots/tsne_epoch1.png", "plots/tsne_epoch1.html"}
    drawn = {"plots/architecture.svg", "plots/architecture.png"}
    curves = {"plots/loss.png", "plots/accuracy.png", "plots/confusion.png"}
    assert files == curves | maps | drawn
    predictions = {item.path for item in client.list_artifacts(run.info.run_id, "predictions")}
    assert predictions == {"predictions/manifest.json", "predictions/test.npz"}
    assert 0 <= run.data.metrics["test/macro_f1"] <= 1
    assert 0 <= run.data.metrics["test/calibration_error"] <= 1
    assert "config.yaml" in {item.path for item in client.list_artifacts(run.info.run_id)}
    parent = run.data.tags["mlflow.parentRunId"]
    tables = {item.path for item in client.list_artifacts(parent, "tables")}
    assert tables == {
        f"tables/{name}" for name in ("answer.json", "comparison.csv", "comparison.md")
    }
    assert {item.path for item in client.list_artifacts(parent, "plots")} == {
        "plots/bars.png",
        "plots/curves.png",
        "plots/loss.png",
    }
    models = client.search_logged_models([run.info.experiment_id])
    names = {m.name for m in models if m.source_run_id == run.info.run_id}
    tags = run.data.tags  # one model where the best epoch is the last
    same = tags["orchestrator.best_epoch"] == tags["orchestrator.epochs"]
    assert names == ({"late-best"} if same else {"late-best", "late-last"})
    assert (tags["orchestrator.model_best"] == tags["orchestrator.model_last"]) == same


def test_the_best_model_predicts_in_a_process_without_ray(finished, command):
    run = command.mlflow().get_run(command.runs("tiny")["full"]["mlflow_run_id"])
    code = f"""
import sys
sys.modules["ray"] = None
import mlflow, numpy
mlflow.set_tracking_uri({command.status()["mlflow"]["tracking_uri"]!r})
model = mlflow.pyfunc.load_model({run.data.tags["orchestrator.model_best"]!r})
rows = model.predict(numpy.zeros((3, 20, 30, 3), dtype="uint8"))
assert list(rows["class"])[0] in list("0123456789") and len(rows) == 3
assert abs(rows.iloc[0, 2:].astype(float).sum() - 1) < 1e-4
print("predicted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert "predicted" in done.stdout, done.stderr


def test_the_dashboard_knows_the_training_and_asks_for_the_token(finished, command):
    ray, key = command.status()["ray"], command.runs("tiny")["full"]["key"]
    url = f"{ray['dashboard_url']}/api/train/v2/runs/v1"
    assert requests.get(url, timeout=300).status_code == 401
    token = Path(ray["token_path"]).read_text()
    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=300)
    names = {run["name"]: run["status"] for run in answer.json()["train_runs"]}
    assert names[f"{key}-1"] == "FINISHED"
    assert Path(ray["token_path"]).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_run_of_another_study_is_reused_with_its_metrics(finished, command):
    result = command.run("submit", command.study("twin"))
    assert result.returncode == 0, result.stderr
    client, run = command.mlflow(), command.runs("twin")["rotation"]
    reused = client.get_run(run["mlflow_run_id"])
    tiny = client.get_run(command.runs("tiny")["rotation"]["mlflow_run_id"])
    trained = tiny.data.tags.get("orchestrator.reused_from", tiny.info.run_id)
    origin = client.get_run(trained)  # whichever study of this session came first
    assert reused.data.tags["orchestrator.kind"] == "reused"
    assert reused.data.tags["orchestrator.reused_from"] == origin.info.run_id
    assert reused.data.metrics == origin.data.metrics


@pytest.mark.slow
def test_a_run_that_diverges_fails_with_its_cause_and_the_others_go_on(finished, command):
    result = command.run("submit", command.study("diverges", lr=1e30))
    runs = command.runs("diverges")
    assert result.returncode == 1
    assert runs["late"]["state"] == "FAILED" and "learning rate" in runs["late"]["reason"]
    assert runs["full"]["state"] == "FINISHED"
    tags = command.mlflow().get_run(runs["late"]["mlflow_run_id"]).data.tags
    assert tags["orchestrator.attempt"] == "1"  # such a fault is not retried


@pytest.mark.slow
def test_a_failed_parent_blocks_its_child(finished, command):
    study = command.study("blocked")
    result = command.run("submit", study, "--set", "stages.rotation.config.lr=1.0e30")
    runs = command.runs("blocked")
    assert result.returncode == 1
    assert (runs["rotation"]["state"], runs["late"]["state"]) == ("FAILED", "BLOCKED")


@pytest.mark.slow
def test_maps_that_a_dead_driver_has_not_sent_are_sent_by_status(finished, command):
    client, run_id = command.mlflow(), command.runs("tiny")["late"]["mlflow_run_id"]
    parent = client.get_run(run_id).data.tags["mlflow.parentRunId"]
    (picture,) = (command.home / "artifacts").rglob(f"{run_id}/**/tsne_epoch1.png")
    picture.unlink()
    client.delete_tag(run_id, "orchestrator.figures")
    client.update_run(parent, status="RUNNING")
    assert command.runs("tiny")["late"]["state"] == "FINISHED"
    assert client.get_run(run_id).data.tags["orchestrator.figures"] == "plots/"
    assert picture.is_file()
    assert client.get_run(parent).info.status == "FINISHED"


@pytest.mark.slow
def test_a_run_that_was_deleted_in_mlflow_is_sent_again_by_status(finished, command):
    before = command.runs("tiny")
    gone = before["full"]["mlflow_run_id"]
    command.mlflow().delete_run(gone)
    after = command.runs("tiny")
    assert after["late"] == before["late"] and after["full"]["state"] == "FINISHED"
    assert after["full"]["mlflow_run_id"] != gone


def test_more_workers_than_the_cluster_has_is_said_at_once(command):
    study = command.study("wide")
    result = command.run("submit", study, "--set", "resources.workers=16")
    assert result.returncode == 1
    assert "a Run asks for 16 workers" in result.stderr and "the cluster has" in result.stderr


@pytest.mark.slow
def test_interrupting_stops_following_and_a_killed_driver_is_told_and_resumed(command):
    study = command.study(
        "long", epochs=300, form=ALONE
    )  # so that it is not over when it is killed
    process = command.start("submit", study)
    key = command.training(study)
    run = command.runs("long")["full"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert "stopped following; the study goes on" in err and f"submit {study}" in err
    wait_for(command.driver).kill()
    wait_for(lambda: command.runs("long")["full"]["state"] == "KILLED")
    assert list((command.home / "store" / key).glob("epoch_*"))
    result = command.run("submit", study)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "resumable" in result.stdout
    after = command.runs("long")["full"]
    assert after["mlflow_run_id"] == run["mlflow_run_id"] and after["state"] == "FINISHED"
    history = command.mlflow().get_metric_history(run["mlflow_run_id"], "train/loss")
    assert [point.step for point in history] == list(range(1, 301))


@pytest.fixture(scope="module")
def other(command, tmp_path_factory):
    """Another home beside the first."""
    made = Command(tmp_path_factory.mktemp("other"))
    yield made
    made.run("down")


@pytest.mark.slow
def test_address_sends_the_same_job_to_another_cluster(command, other, monkeypatch):
    ray = command.status()["ray"]
    monkeypatch.setitem(other.environment, "RAY_AUTH_MODE", "token")
    monkeypatch.setitem(other.environment, "RAY_AUTH_TOKEN_PATH", ray["token_path"])
    study = other.study("away", form=ALONE)
    result = other.run("submit", study, "--address", ray["dashboard_url"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert other.status()["ray"]["address"] is None
    assert {run["state"] for run in other.runs("away").values()} == {"FINISHED"}
    assert "away" not in [item["study"] for item in command.status()["studies"]]


@pytest.mark.slow
def test_two_homes_at_once_do_not_meet(command, other):
    both = [one.start("submit", one.study("near", lr=0.03, form=ALONE)) for one in (command, other)]
    for process in both:
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, out + err
    mine, theirs = command.status(), other.status()
    assert mine["mlflow"] != theirs["mlflow"] and mine["ray"] != theirs["ray"]
    assert {study["study"] for study in theirs["studies"]} <= {"near", "away"}
    here, there = command.runs("near")["full"], other.runs("near")["full"]
    assert here["key"] == there["key"]  # the same work, done twice
    assert here["mlflow_run_id"] != there["mlflow_run_id"]
    assert Store(other.home / "store").run(there["key"]).attempt() == 1
    assert "stopped ray and mlflow" in other.run("down").stdout
    shutil.rmtree(Home(other.home).ray_temp.parent)
    assert command.status()["ray"]["address"] == mine["ray"]["address"]
    assert command.status()["mlflow"] == mine["mlflow"]
    assert other.status()["ray"]["address"] is None


def test_mlflow_shows_what_the_processes_of_a_run_took_in_each_epoch(finished, command):
    client = command.mlflow()
    run_id = command.runs("tiny")["rotation"]["mlflow_run_id"]
    for name, least, most in (("cpu_cores", 0.01, 64), ("memory_mb", 100, 1e5)):
        points = client.get_metric_history(run_id, f"system/{name}")
        assert [point.step for point in points] == [1, 2]
        assert all(least < point.value < most for point in points), points
    waits = client.get_metric_history(run_id, "system/input_wait_fraction")
    assert [point.step for point in waits] == [1, 2]
