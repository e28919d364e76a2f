"""One Run on its way to MLflow: its phases, and that nothing is sent twice or lost."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.meters.usage_records import CPU, write_usage
from orchestrator.pages.pictures import FOLDER, VIEWS, files_of
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.publisher import Publisher
from orchestrator.tracking.run_sync import (
    Children,
    DataFacts,
    Phase,
    RunEnd,
    RunSync,
    SyncContext,
    identity,
)
from orchestrator.tracking.tags import Kind
from tests.orchestrator.drawing.test_epoch_pictures import keep
from tests.orchestrator.tracking.test_run_states import planned
from trainables.record_files import mask_file, view_file

RUN = planned("A", key="a" * 20)


@pytest.fixture
def context(tmp_path: Path, mlflow_uri: str) -> SyncContext:
    tracker, store = Tracker(mlflow_uri), Store(tmp_path / "store")
    experiment = tracker.writer.experiment("study")
    parent = tracker.reader.run(tracker.writer.create_run(experiment, "submission", {}))
    children, publisher = Children(tracker, parent), Publisher(tracker, store)
    data = {
        "digits": {"fingerprint": "f" * 40, "classes": [0, 1], "images": {"train": 8, "val": 2}}
    }
    tracker.writer.log_text(parent.run_id, json.dumps(data), "data.json")
    facts = DataFacts(tracker, parent)
    return SyncContext(tracker, store, {"study": "s"}, Kind.RUN, children, publisher, facts)


def train(context: SyncContext, run: Run, epochs: int) -> None:
    """Report progress of a Run as its worker does."""
    folder = context.store.run(run.key)
    attempt = folder.attempt() or folder.begin_attempt()
    history = [{"epoch": n, "train/loss": 1.0 / n} for n in range(1, epochs + 1)]
    progress = {"done": epochs, "total": 4, "unit": "epochs", "history": history, "facts": {}}
    folder.writer(attempt).report(progress)


def sent(context: SyncContext, sync: RunSync) -> TrackedRun:
    """Return the Run as MLflow has it."""
    tracked = context.children.find(identity(sync.run))
    assert tracked is not None
    return context.tracker.reader.run(tracked.run_id)


def steps(context: SyncContext, run_id: str) -> list[int]:
    points = context.tracker.connection.api.client.get_metric_history(run_id, "train/loss")
    return [point.step for point in points]


def test_mlflow_lists_the_parts_of_the_data_and_where_a_run_comes_from(
    context: SyncContext,
) -> None:
    train(context, RUN, epochs=1)
    sync = RunSync(context, RUN)
    sync.advance()
    run = context.tracker.connection.api.client.get_run(sent(context, sync).run_id)
    listed = {
        item.dataset.name: (item.dataset.digest, json.loads(item.dataset.profile)["num_rows"],
                            [tag.value for tag in item.tags])
        for item in run.inputs.dataset_inputs
    }  # fmt: skip
    digest = "f" * 36  # as many letters as MLflow takes
    assert listed == {"digits/train": (digest, 8, ["train"]), "digits/val": (digest, 2, ["val"])}
    assert run.data.tags["mlflow.source.name"] == "study s"
    assert run.data.tags["orchestrator.starts_from"] == "random weights"
    assert run.data.tags["mlflow.user"] == run.info.user_id != ""


def test_a_run_goes_through_its_phases_and_every_epoch_is_sent_once(context: SyncContext) -> None:
    sync = RunSync(context, RUN)
    assert sync.phase is Phase.OPENING
    train(context, RUN, epochs=1)
    for _ in range(2):
        sync.advance()
    assert sync.phase is Phase.STREAMING and sent(context, sync).status == "RUNNING"
    train(context, RUN, epochs=3)
    sync.end = RunEnd(State.FAILED, "too hot")
    sync.advance()
    tracked = sent(context, sync)
    assert sync.phase is Phase.DONE and sync.is_closed
    assert (tracked.status, tracked.tags["reason"]) == ("FAILED", "too hot")
    assert steps(context, tracked.run_id) == [1, 2, 3]


def test_a_run_that_is_sent_by_another_process_goes_on_after_its_last_epoch(
    context: SyncContext,
) -> None:
    train(context, RUN, epochs=2)
    first = RunSync(context, RUN)
    first.advance()
    train(context, RUN, epochs=3)
    second = RunSync(context, RUN)  # as a driver that goes on after the first has died
    second.advance()
    assert sent(context, second).run_id == sent(context, first).run_id
    assert steps(context, sent(context, second).run_id) == [1, 2, 3]


def test_what_the_processes_took_is_sent_once_also_when_it_comes_later_than_its_epoch(
    context: SyncContext,
) -> None:
    began = int(time.time())

    def note(*epochs: float) -> None:
        folder = context.store.run(RUN.key)
        ended = {epoch: began + 100 * epoch for epoch in epochs}
        entries = [{"epoch": epoch, "time": ended[epoch], CPU: epoch / 2} for epoch in epochs]
        write_usage(folder.writer(folder.attempt()), entries)

    def logged(run_id: str) -> list[tuple[int, float]]:
        points = context.tracker.connection.api.client.get_metric_history(run_id, CPU)
        return sorted((point.step, point.value) for point in points)

    train(context, RUN, epochs=2)
    note(1.0)
    first = RunSync(context, RUN)
    first.advance()
    run_id = sent(context, first).run_id
    assert logged(run_id) == [(1, 0.5)] and steps(context, run_id) == [1, 2]
    note(1.0, 2.0, 3.0)  # the third is in no checkpoint yet, and may be trained again
    first.advance()
    assert logged(run_id) == [(1, 0.5), (2, 1.0)]
    train(context, RUN, epochs=3)
    for sync in (RunSync(context, RUN), RunSync(context, RUN)):
        sync.advance()
        assert logged(run_id) == [(1, 0.5), (2, 1.0), (3, 1.5)]
    client = context.tracker.connection.api.client
    times = {p.step: p.timestamp for p in client.get_metric_history(run_id, CPU)}
    # when the epochs ended, not when they were sent; of the second that is not known in time
    assert (times[1], times[3]) == (1000 * (began + 100), 1000 * (began + 300))
    assert times[1] <= times[2] <= times[3]
    assert [point.key for point in client.get_metric_history(run_id, "time")] == []


def test_pictures_of_an_epoch_are_in_mlflow_while_the_run_trains(context: SyncContext) -> None:
    train(context, RUN, epochs=1)
    keep(context.store.run(RUN.key), view_file(1))
    sync = RunSync(context, RUN)
    sync.advance()
    tracked = sent(context, sync)
    assert tracked.status == "RUNNING"
    shown = {f"{FOLDER}/{name}" for name in files_of(VIEWS, 1)}
    assert set(context.tracker.reader.files(tracked.run_id, FOLDER)) == shown
    tags = context.tracker.connection.api.client.get_run(tracked.run_id).data.tags
    assert tags["mlflow.loggedImages"] == "True"
    train(context, RUN, epochs=2)
    keep(context.store.run(RUN.key), view_file(2))
    (context.store.run(RUN.key).path / mask_file(2)).write_bytes(b"no archive")
    sync.advance()
    assert set(context.tracker.reader.files(tracked.run_id, FOLDER)) == shown
    assert steps(context, tracked.run_id) == [1, 2]


def test_a_close_that_mlflow_does_not_answer_is_repeated(
    context: SyncContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(context, RUN, epochs=1)
    sync = RunSync(context, RUN, RunEnd(State.KILLED, "it was stopped"))
    set_status, failures = context.tracker.writer.set_status, [TrackingError("away")]

    def answer(run_id: str, status: str) -> None:
        if failures:
            raise failures.pop()
        set_status(run_id, status)

    monkeypatch.setattr(context.tracker.writer, "set_status", answer)
    with pytest.raises(TrackingError):
        sync.advance()
    assert sync.phase is Phase.CLOSING and not sync.is_closed
    sync.advance()
    tracked = sent(context, sync)
    assert sync.phase is Phase.DONE and tracked.status == "KILLED"
    assert steps(context, tracked.run_id) == [1]


def test_a_run_that_was_created_but_not_described_is_made_whole(
    context: SyncContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(run_id: str, params: object) -> None:
        raise TrackingError("away")

    sync = RunSync(context, RUN)
    with monkeypatch.context() as patch:
        patch.setattr(context.tracker.writer, "log_params", die)
        with pytest.raises(TrackingError):
            sync.advance()
    assert sync.phase is Phase.OPENING
    sync.advance()
    tracked = sent(context, sync)  # the one that was created before
    assert tracked.tags["described"] == "true"
    data = context.tracker.connection.api.client.get_run(tracked.run_id).data
    assert data.params["epochs"] == "4"
    assert context.store.run(RUN.key).origin() == {
        "run_id": tracked.run_id,
        "uri": context.tracker.uri,
    }


def test_two_runs_of_one_label_and_seed_have_mlflow_runs_of_their_own(
    context: SyncContext,
) -> None:
    twin = planned("A", key="b" * 20)
    for run, epochs in ((RUN, 1), (twin, 2)):
        train(context, run, epochs)
        RunSync(context, run).advance()
    found = [context.children.find(identity(run)) for run in (RUN, twin)]
    ids = [tracked.run_id for tracked in found if tracked is not None]
    assert len(set(ids)) == 2
    assert [steps(context, run_id) for run_id in ids] == [[1], [1, 2]]


def test_a_trial_of_a_population_keeps_its_mlflow_run_when_its_key_changes(
    context: SyncContext,
) -> None:
    context = replace(context, kind=Kind.TRIAL)
    first, other = RUN, planned("A", key="b" * 20)  # two trials of the same values
    evolved = planned("A", key="c" * 20)
    for run in (first, other):
        RunSync(context, run, first_key=run.key).advance()
    step = {"epoch": 1, "trial": 0, "values": {}}
    again = replace(context, children=Children(context.tracker, context.children._parent))
    RunSync(again, evolved, lineage=[step], first_key=first.key).advance()
    children = context.tracker.reader.children(context.children._parent)
    assert sorted(child.tags["run_key"] for child in children) == ["b" * 20, "c" * 20]
    assert {child.tags["first_key"] for child in children} == {first.key, other.key}
