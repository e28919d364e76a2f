"""Checkpoints are written while training goes on, as often as a study says, and a Run that was
killed between two of them ends as one that was not."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from orchestrator.execution import worker
from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.storage import tensors
from orchestrator.storage.run_records import StaleWriter, Store
from tests.conftest import ALONE, Tasks
from tests.ledger import Reference, reference
from trainables.engine.checkpoints import TrainingState, Unrecoverable
from trainables.training_config import CheckpointEvery

EPOCHS = 4
QUIET = {"epochs": EPOCHS, "lr": 1.0e-6}  # of seed 1 the first epoch is the best


class Killed(Exception):
    """Stands for a process that dies."""


def every(task: Task, store: Store, often: Mapping[str, Any] | None) -> Task:
    """The next attempt in another store, with checkpoints so often."""
    attempt = store.run(task.key).begin_attempt()
    config = {**task.config, "checkpoint_every": often}
    return replace(task, config=config, store=str(store.root), attempt=attempt)


@pytest.fixture
def calm(tasks: Tasks) -> tuple[Task, Reference]:
    task = replace(tasks.make(**QUIET), seed=1)
    train(task, ALONE, lambda figures: None)
    found = reference(tasks.store, {"only": task.key})
    assert found["only"].best == 1
    return task, found


@pytest.mark.parametrize(
    ("often", "stored", "again"),
    [
        (None, [], 4),
        ({"epochs": 1}, [1, 2, 3], 1),
        ({"epochs": 2}, [1, 2], 2),  # the best one, which is long gone, and the second
        ({"epochs": 4}, [], 4),
        ({"minutes": 1.0e-9}, [1, 2, 3], 1),
        ({"minutes": 1000.0}, [], 4),
    ],
)
def test_a_run_killed_between_two_checkpoints_trains_those_epochs_again(
    calm: tuple[Task, Reference],
    tmp_path: Path,
    often: Mapping[str, Any] | None,
    stored: list[int],
    again: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "_BYTES_PER_S", 1.0)  # as if a checkpoint took days
    task, wanted = calm
    store = Store(tmp_path / "other")

    def report(figures: Mapping[str, float]) -> None:
        if figures["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        train(every(task, store, often), ALONE, report)
    run = store.run(task.key)
    assert run.epochs() == stored
    if stored:
        newest = run.newest()
        assert newest is not None and newest.epoch == stored[-1]
        assert (run.path / "spare_00001").is_dir()
    trained: list[Mapping[str, float]] = []
    train(every(task, store, often), ALONE, trained.append)
    assert len(trained) == again
    assert reference(store, {"only": task.key}) == wanted
    assert run.epochs() == [1, EPOCHS] and run.load(EPOCHS) is not None


def test_by_default_writing_takes_a_fiftieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 MB take a second, as long as it is not known better."""
    now = [1000.0]
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    weights, optimizer = {"a": torch.zeros(15_000_000)}, {"state": {0: [torch.zeros(10_000_000)]}}
    state, pace = TrainingState(1, weights, optimizer, [], 0.0), worker._Pace(None)
    for later, due in ((49.0, False), (51.0, True), (99.0, False), (101.0, True)):
        now[0] = 1000.0 + later if later < 60 else 1051.0 + later
        assert pace.is_due(state) == due
        if later == 51.0:
            pace.has_taken(2.0)


def test_training_goes_on_while_a_checkpoint_is_written_and_names_no_epoch_before_it_is(
    calm: tuple[Task, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first file takes until the second epoch is half trained, which changes weights and
    optimizer: what is written are those of the first epoch all the same."""
    monkeypatch.setattr("trainables.engine.loop._PROGRESS_SECONDS", 0.0)
    task, wanted = calm
    store = Store(tmp_path / "other")
    seen, save, is_half_trained = [], tensors.save, threading.Event()
    report = worker.StoredCheckpoints.report

    def slow(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        assert is_half_trained.wait(60)
        return save(value, path)

    def watched(self: worker.StoredCheckpoints, progress: Any) -> None:
        report(self, progress)
        if progress.done > 1.4:
            seen.append(store.run(task.key).progress())
            is_half_trained.set()

    monkeypatch.setattr(worker.tensors, "save", slow)
    monkeypatch.setattr(worker.StoredCheckpoints, "report", watched)
    train(every(task, store, {"epochs": 1}), ALONE, lambda figures: None)
    assert seen[0]["done"] > 1.4 and seen[0]["history"] == []
    assert reference(store, {"only": task.key}) == wanted


def test_an_error_of_the_writing_thread_ends_the_training_that_went_on(
    calm: tuple[Task, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = calm
    store = Store(tmp_path / "other")
    trained: list[Mapping[str, float]] = []

    def fail(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        raise ZeroDivisionError

    monkeypatch.setattr(worker.tensors, "save", fail)
    with pytest.raises(ZeroDivisionError):
        train(every(task, store, {"epochs": 1}), ALONE, trained.append)
    assert len(trained) <= 1 and store.run(task.key).epochs() == []


def test_a_training_that_cannot_go_on_leaves_the_figures_of_all_its_epochs(
    calm: tuple[Task, Reference], tmp_path: Path
) -> None:
    task, _ = calm
    store = Store(tmp_path / "other")

    def report(figures: Mapping[str, float]) -> None:
        if figures["epoch"] == 2:
            raise Unrecoverable("it has collapsed")

    with pytest.raises(Unrecoverable, match="it has collapsed"):
        train(every(task, store, None), ALONE, report)
    progress = store.run(task.key).progress()
    assert progress is not None
    assert [entry["epoch"] for entry in progress["history"]] == [1, 2]


def test_the_writing_thread_of_an_older_attempt_changes_nothing(
    calm: tuple[Task, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = calm
    store, save = Store(tmp_path / "other"), tensors.save

    def overtaken(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
        store.run(task.key).begin_attempt()
        return save(value, path)

    monkeypatch.setattr(worker.tensors, "save", overtaken)
    with pytest.raises(StaleWriter):
        train(every(task, store, {"epochs": 1}), ALONE, lambda figures: None)
    assert store.run(task.key).epochs() == []


def test_every_epoch_of_a_trial_is_stored_before_it_is_reported(
    calm: tuple[Task, Reference], tmp_path: Path
) -> None:
    task, _ = calm
    store = Store(tmp_path / "other")
    newest: list[int] = []

    def report(figures: Mapping[str, float]) -> None:
        found = store.run(task.key).newest()
        newest.append(found.epoch if found else 0)

    train(replace(every(task, store, None), tested=False), ALONE, report)
    assert newest == [1, 2, 3, 4]


def test_how_often_is_no_part_of_a_key(tasks: Tasks) -> None:
    keys = {tasks.make(checkpoint_every=value).key for value in (None, {"minutes": 5.0})}
    assert len(keys) == 1


@pytest.mark.parametrize("values", [{}, {"epochs": 1, "minutes": 1.0}])
def test_how_often_is_said_in_one_way(values: Mapping[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give one of epochs and minutes"):
        CheckpointEvery(**values)
