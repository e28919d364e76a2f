"""Sending the store to MLflow: a trial and the Run that continues it, reused Runs, refusals, and
experiments that were deleted. With MLflow's own database, without its server."""

from dataclasses import replace
from pathlib import Path

import pytest

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
from tests.orchestrator.tracking.test_run_states import planned
from trainables.record_files import MAPS


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
