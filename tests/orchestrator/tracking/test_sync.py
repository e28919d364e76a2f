"""Store → MLflow: what a trial leaves to the Run that goes on from it, whose models are used again,
and experiments that somebody has deleted. MLflow's own database, without its server."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.worker import train
from orchestrator.planning.run import Run
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker, TrackingError
from orchestrator.tracking.sync import Mirror
from orchestrator.tuning.search_runner import retry_mlflow
from tests.conftest import ALONE, Tasks
from tests.orchestrator.tracking.test_run_states import planned
from trainables.monitoring.record_files import MAPS


def tracker_in(folder: Path) -> Tracker:
    return Tracker(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts below
    return tracker_in(tmp_path)


def opened(tracker: Tracker, name: str) -> TrackedRun:
    """A submission, or a search."""
    return tracker.run(tracker.create_run(tracker.experiment(name), name, {}))


def sent(mirror: Mirror, run: Run, outcome: str = "") -> TrackedRun:
    """What MLflow has of a Run that has FINISHED."""
    mirror.end(run, "FINISHED", outcome=outcome)
    mirror.finish()
    (found,) = mirror.tracker.children(mirror.submission)
    return found


def test_a_trial_leaves_models_and_pictures_to_the_run_that_goes_on_from_it(
    tracker: Tracker, tasks: Tasks
) -> None:
    task = tasks.make(epochs=2)
    run, store = replace(planned("A"), key=task.key), tasks.store
    train(replace(task, until=1, tested=False), ALONE, lambda figures: None)
    trial = Mirror(tracker, store, opened(tracker, "search"), {}, "trial")
    found = sent(trial, run, outcome="stopped_early")
    assert found.tags["model_last"] and "maps" not in found.tags
    features = store.run(run.key).features()
    assert features is not None and not (features / MAPS).exists()  # they would be half of it
    assert store.run(run.key).origin() is None

    train(replace(task, attempt=store.run(task.key).begin_attempt()), ALONE, lambda figures: None)
    found = sent(Mirror(tracker, store, opened(tracker, "study"), {}), run)
    assert (found.tags["kind"], found.tags["maps"]) == ("run", "plots/")
    names = {Path(path).name for path in tracker.files(found.run_id, "plots")}
    assert {"tsne_epoch1.png", "tsne_epoch2.png", "architecture.svg"} <= names
    assert store.run(run.key).origin()["run_id"] == found.run_id
    # the same again as a trial is no news of where its model is
    sent(Mirror(tracker, store, opened(tracker, "more"), {}, "trial"), run, outcome="finished")
    assert store.run(run.key).origin()["run_id"] == found.run_id


def test_a_run_is_used_again_where_its_model_is_and_sent_whole_to_another_server(
    tracker: Tracker, tasks: Tasks, tmp_path: Path
) -> None:
    task = tasks.make(epochs=1)
    run, store = replace(planned("A"), key=task.key), tasks.store
    train(task, ALONE, lambda figures: None)
    first = sent(Mirror(tracker, store, opened(tracker, "one"), {}), run)
    again = sent(Mirror(tracker, store, opened(tracker, "two"), {}), run)
    assert (again.tags["kind"], again.tags["reused_from"]) == ("reused", first.run_id)
    assert "model_best" not in again.tags
    (tmp_path / "other").mkdir()
    other = tracker_in(tmp_path / "other")
    moved = sent(Mirror(other, store, opened(other, "one"), {}), run)
    assert moved.tags["kind"] == "run" and moved.tags["model_best"]
    assert store.run(run.key).origin()["run_id"] == moved.run_id


def test_an_experiment_that_was_deleted_is_taken_back(tracker: Tracker) -> None:
    before = opened(tracker, "study")
    tracker.client.delete_experiment(before.experiment_id)
    after = opened(tracker, "study")
    assert after.experiment_id == before.experiment_id
    assert tracker.client.get_experiment(after.experiment_id).lifecycle_stage == "active"


def test_a_refusal_is_not_waited_for(tracker: Tracker) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        tracker.run("0" * 32)

    with pytest.raises(TrackingError) as error:
        retry_mlflow(call)
    assert error.value.answered and len(calls) == 1


def test_what_was_said_last_of_a_submission_is_sent_before_the_end(
    tracker: Tracker, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing else is left to be sent, and where MLflow is away for a moment."""
    search = opened(tracker, "search")
    mirror = Mirror(tracker, tasks.store, search, {}, "trial")
    set_tags, away = tracker.set_tags, [TrackingError("away")]

    def answer(run_id: str, tags: dict[str, str]) -> None:
        if away:
            raise away.pop()
        set_tags(run_id, tags)

    monkeypatch.setattr(tracker, "set_tags", answer)
    mirror.start()
    mirror.say({"progress": "4 of 4"})
    assert mirror.stop(60)
    assert not away and tracker.run(search.run_id).tags["progress"] == "4 of 4"
