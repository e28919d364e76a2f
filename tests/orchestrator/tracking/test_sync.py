"""Sending the store to MLflow: a trial and the Run that continues it, reused Runs, refusals, and
experiments that were deleted. With MLflow's own database, without its server."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow.server import ARTIFACTS_DESTINATION_ENV_VAR

from orchestrator.execution.worker import train
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync, retry_mlflow
from orchestrator.tracking.tags import Kind
from tests.conftest import ALONE, Tasks
from tests.mlflow_server import mlflow_server
from tests.orchestrator.rest.servers import Answers, web_server
from tests.orchestrator.tracking.test_run_states import planned
from trainables.record_files import MAPS
from trainables.tasks.predictor import Classifier, load


@pytest.fixture
def tracker(mlflow_uri: str) -> Tracker:
    return Tracker(mlflow_uri)


def opened(tracker: Tracker, name: str) -> TrackedRun:
    """Open a submission, or a search."""
    return tracker.reader.run(tracker.writer.create_run(tracker.writer.experiment(name), name, {}))


def sent(sync: MlflowSync, run: Run, outcome: str = "") -> TrackedRun:
    """Send a Run that has FINISHED. Returns it as MLflow has it."""
    sync.end(run, RunEnd(State.FINISHED, outcome=outcome))
    sync.finish()
    (found,) = sync.tracker.reader.children(sync.submission)
    return found


def test_a_trial_leaves_models_and_pictures_to_the_run_that_goes_on_from_it(
    tracker: Tracker, tasks: Tasks
) -> None:
    task = tasks.make(epochs=2)
    run, store = replace(planned("A"), key=task.key), tasks.store
    train(replace(task, until=1, tested=False), ALONE, lambda figures: None)
    trial = MlflowSync(tracker, store, opened(tracker, "search"), {}, Kind.TRIAL)
    found = sent(trial, run, outcome="stopped_early")
    assert found.tags["model_last"] and "figures" not in found.tags
    features = store.run(run.key).features()
    assert features is not None and not (features / MAPS).exists()  # they would be half of it
    assert store.run(run.key).origin() is None

    train(replace(task, attempt=store.run(task.key).begin_attempt()), ALONE, lambda figures: None)
    found = sent(MlflowSync(tracker, store, opened(tracker, "study"), {}), run)
    assert (found.tags["kind"], found.tags["figures"]) == ("run", "plots/")
    names = {Path(path).name for path in tracker.reader.files(found.run_id, "plots")}
    assert {"tsne_epoch1.png", "tsne_epoch2.png", "architecture.svg"} <= names
    assert store.run(run.key).origin()["run_id"] == found.run_id
    # the same again as a trial is no news of where its model is
    sent(
        MlflowSync(tracker, store, opened(tracker, "more"), {}, Kind.TRIAL), run, outcome="finished"
    )
    assert store.run(run.key).origin()["run_id"] == found.run_id


@pytest.mark.parametrize("best", [1, 2])
def test_the_last_checkpoint_is_a_model_of_its_own_where_it_is_not_the_best(
    tracker: Tracker, tasks: Tasks, best: int
) -> None:
    task = tasks.make(epochs=2)
    run, folder = replace(planned("A"), key=task.key), tasks.store.run(task.key)
    train(task, ALONE, lambda figures: None)
    folder.writer(folder.attempt()).finish({**(folder.result() or {}), "best_epoch": best})
    tags = sent(MlflowSync(tracker, tasks.store, opened(tracker, "one"), {}), run).tags
    assert tags["model_best"].startswith("models:/") and tags["model_last"].startswith("models:/")
    assert (tags["model_best"] == tags["model_last"]) == (best == 2)


def test_a_run_is_used_again_where_its_model_is_and_sent_whole_to_another_server(
    tracker: Tracker, tasks: Tasks, tmp_path: Path
) -> None:
    task = tasks.make(epochs=1)
    run, store = replace(planned("A"), key=task.key), tasks.store
    train(task, ALONE, lambda figures: None)
    first = sent(MlflowSync(tracker, store, opened(tracker, "one"), {}), run)
    again = sent(MlflowSync(tracker, store, opened(tracker, "two"), {}), run)
    assert (again.tags["kind"], again.tags["reused_from"]) == ("reused", first.run_id)
    assert "model_best" not in again.tags
    (tmp_path / "other").mkdir()
    with mlflow_server(tmp_path / "other") as uri:
        other = Tracker(uri)
        moved = sent(MlflowSync(other, store, opened(other, "one"), {}), run)
    assert moved.tags["kind"] == "run" and moved.tags["model_best"]
    assert store.run(run.key).origin()["run_id"] == moved.run_id


def models_of(tracker: Tracker, tags: Mapping[str, str]) -> list[Path]:
    """Return where a server of these tests keeps the weights of a Run's best and last model."""
    root = Path(os.environ[ARTIFACTS_DESTINATION_ENV_VAR])
    found = []
    for name in ("model_best", "model_last"):
        model = tracker.connection.api.client.get_logged_model(tags[name].removeprefix("models:/"))
        folder = root / model.artifact_location.removeprefix("mlflow-artifacts:/")
        (weights,) = folder.rglob("weights.pt")
        found.append(weights)
    return found


def test_weights_are_not_stored_again_where_the_server_keeps_artifacts_on_the_same_disk(
    mlflow_uri: str, tasks: Tasks, tmp_path: Path
) -> None:
    task = replace(tasks.make(epochs=2, lr=1.0e-6), seed=1)
    run, folder = replace(planned("A"), key=task.key, predicts=True), tasks.store.run(task.key)
    train(task, ALONE, lambda figures: None)
    assert (folder.result() or {})["best_epoch"] == 1
    tracker = Tracker(mlflow_uri, tmp_path / "artifacts")
    submission = opened(tracker, "one")
    found = sent(MlflowSync(tracker, tasks.store, submission, {}), run)
    tags = found.tags
    kept = [folder.path / f"epoch_0000{epoch}" / "weights.pt" for epoch in (1, 2)]
    models = models_of(tracker, tags)
    assert all(model.samefile(path) for model, path in zip(models, kept, strict=True))
    drawn = folder.features() / MAPS
    pages = list(drawn.rglob("*.html"))
    sent_to = tmp_path / "artifacts" / found.experiment_id / found.run_id / "artifacts"
    assert pages and all(page.samefile(sent_to / page.relative_to(drawn)) for page in pages)
    described = yaml.safe_load((models[0].parents[2] / "MLmodel").read_text())
    assert described["model_size_bytes"] > kept[0].stat().st_size
    assert isinstance(load(tracker.reader.download_model(tags["model_best"], tmp_path)), Classifier)

    # each name is its own: what is written or removed under one leaves the other as it is
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.pt").write_bytes(b"other")
    last = tags["model_last"].removeprefix("models:/")
    tracker.connection.api.client.log_model_artifacts(last, str(tmp_path / "other"))
    assert models[1].read_bytes() == b"other" and folder.load(2) is not None
    models[0].unlink()
    assert folder.load(1) is not None
    # it is sent again, as a Run that was trained again is: its models have the weights of now
    tracker.writer.set_status(found.run_id, State.RUNNING)
    sent(MlflowSync(tracker, tasks.store, submission, {}), run)
    assert all(model.samefile(path) for model, path in zip(models, kept, strict=True))


@pytest.mark.parametrize("place", ["elsewhere", "another home's"])
def test_weights_are_sent_where_the_server_keeps_artifacts_elsewhere(
    mlflow_uri: str, tasks: Tasks, tmp_path: Path, place: str
) -> None:
    task = tasks.make(epochs=1)
    run, folder = replace(planned("A"), key=task.key, predicts=True), tasks.store.run(task.key)
    train(task, ALONE, lambda figures: None)
    tracker = Tracker(mlflow_uri, tmp_path / "not there" if place == "elsewhere" else None)
    tags = sent(MlflowSync(tracker, tasks.store, opened(tracker, "one"), {}), run).tags
    weights = folder.path / "epoch_00001" / "weights.pt"
    for model in models_of(tracker, tags):
        assert not model.samefile(weights) and model.read_bytes() == weights.read_bytes()


def test_an_experiment_that_was_deleted_is_restored(tracker: Tracker) -> None:
    before = opened(tracker, "study")
    tracker.connection.api.client.delete_experiment(before.experiment_id)
    after = opened(tracker, "study")
    assert after.experiment_id == before.experiment_id
    assert (
        tracker.connection.api.client.get_experiment(after.experiment_id).lifecycle_stage
        == "active"
    )


def test_a_refused_call_is_not_repeated(tracker: Tracker) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        tracker.reader.run("0" * 32)

    with pytest.raises(TrackingError) as error:
        retry_mlflow(call)
    assert error.value.answered and len(calls) == 1


@pytest.mark.parametrize(("failures", "calls"), [(1, 2), (2, 3), (9, 3)])
def test_a_server_that_fails_is_asked_three_times(
    failures: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database may be busy for a moment; one that stays broken is a refusal."""
    monkeypatch.setattr("orchestrator.tracking.sync._PERIOD_SECONDS", 0.0)
    answers = Answers(500, b'{"error_code": "INTERNAL_ERROR", "message": "the bucket is away"}')
    with web_server(answers) as uri:
        reader = Tracker(uri).reader

        def call() -> int:
            if len(answers.asked) == failures:
                answers.status, answers.body = 200, b'{"experiment": {}}'
            reader._connection.experiment("x")
            return 1

        if failures < 3:
            assert retry_mlflow(call) == 1
        else:
            with pytest.raises(TrackingError, match="the bucket is away") as error:
                retry_mlflow(call)
            assert error.value.answered
    assert len(answers.asked) == calls


def test_the_last_tags_of_a_submission_are_sent_before_the_end(
    tracker: Tracker, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing else is left to be sent, and where MLflow does not answer at first."""
    search = opened(tracker, "search")
    sync = MlflowSync(tracker, tasks.store, search, {}, Kind.TRIAL)
    set_tags, away = tracker.writer.set_tags, [TrackingError("away")]

    def answer(run_id: str, tags: dict[str, str]) -> None:
        if away:
            raise away.pop()
        set_tags(run_id, tags)

    monkeypatch.setattr(tracker.writer, "set_tags", answer)
    sync.start()
    sync.set_tags({"progress": "4 of 4"})
    assert sync.stop(60)
    assert not away and tracker.reader.run(search.run_id).tags["progress"] == "4 of 4"


def test_a_run_that_mlflow_refuses_does_not_keep_the_others_waiting(
    tracker: Tracker, tasks: Tasks
) -> None:
    sync = MlflowSync(tracker, tasks.store, opened(tracker, "study"), {})
    runs = [planned(name, key=name.lower() * 20) for name in ("A", "B")]
    for run in runs:
        sync.follow(run)
    sync.flush()
    (deleted,) = [c for c in tracker.reader.children(sync.submission) if c.tags["label"] == "A"]
    tracker.connection.api.client.delete_run(deleted.run_id)
    for run in runs:
        sync.end(run, RunEnd(State.FAILED, "too hot"))
    with pytest.raises(TrackingError) as error:
        sync.flush()
    assert error.value.answered
    (sent_run,) = tracker.reader.children(sync.submission)
    assert (sent_run.tags["label"], sent_run.status) == ("B", "FAILED")
    assert sent_run.tags["reason"] == "too hot"
