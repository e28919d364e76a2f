"""A trial is a Run that is not tested: it reports every epoch, and may be stopped and continued."""

import os
import threading
import time
from dataclasses import replace

import pytest
import torch

from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.planning.placement import ResourceRequest
from orchestrator.storage.run_records import Store
from orchestrator.tuning import trial_worker as trial
from orchestrator.tuning.trial_worker import TrialSpec, run_trial, to_config
from tests.conftest import ALONE, Tasks, damage
from trainables.engine.checkpoints import Unrecoverable
from trainables.engine.loop import Training


def spec(task: Task, **changes) -> dict:
    task = replace(task, attempt=0, tested=False)
    return to_config(
        replace(TrialSpec(0, task, ResourceRequest(1, 1, 0.0), "", "job", None, 600.0), **changes)
    )


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Epochs that were reported to Ray Tune, which stops a trial after epoch `stop`."""
    found: list[int] = []

    def report(figures):
        assert {"epoch", "val/accuracy", "train/loss"} <= figures.keys()
        found.append(int(figures["epoch"]))
        if int(figures["epoch"]) == report.stop:
            raise SystemExit(0)  # what Ray Tune does to the thread of a trial that it has ended

    report.stop = None
    monkeypatch.setattr(trial, "_report", report)
    return found


def test_a_trial_trains_every_epoch_and_meets_no_test_image(
    tasks: Tasks, reported: list[int], monkeypatch: pytest.MonkeyPatch
):
    task, parts, evaluate = tasks.make(), [], Training._sums

    def sums(self, part):
        parts.append(part)
        return evaluate(self, part)

    monkeypatch.setattr(Training, "_sums", sums)
    run_trial(spec(task))
    assert reported == [1, 2]
    assert set(parts) == {"val"}
    assert tasks.store.run(task.key).result() is None
    assert [entry["epoch"] for entry in tasks.store.run(task.key).history()] == [1, 2]


def test_a_trial_that_is_done_is_reported_again_and_not_trained(tasks: Tasks, reported: list[int]):
    task = tasks.make()
    train(task, ALONE, lambda figures: None)  # as a Run of some other study
    before = tasks.store.run(task.key).attempt()
    run_trial(spec(task))
    assert reported == [1, 2]
    assert tasks.store.run(task.key).attempt() == before


def test_a_trial_that_was_stopped_is_reported_as_far_as_it_came(tasks: Tasks, reported: list[int]):
    task = tasks.make(epochs=3)
    trial._report.stop = 2
    with pytest.raises(SystemExit):
        run_trial(spec(task))
    assert tasks.store.run(task.key).owner() is None
    (log,) = [p for (number, _), p in tasks.store.run(task.key).logs().items() if number == 2]
    assert log.read_text().endswith("stopped early\n")
    assert [entry["epoch"] for entry in tasks.store.run(task.key).history()] == [1, 2]
    trial._report.stop, reported[:] = None, []
    before = tasks.store.run(task.key).attempt()
    run_trial(spec(task, epochs=2))
    assert reported == [1, 2]
    assert tasks.store.run(task.key).attempt() == before


def test_a_run_continues_from_a_stopped_trial_and_reaches_the_same_weights(
    tasks: Tasks, reported: list[int]
):
    whole = tasks.make(epochs=3)
    train(whole, ALONE, lambda figures: None)
    expected = torch.load(tasks.store.run(whole.key).best().weights, weights_only=True)
    tasks.store.run(whole.key).forget()

    trial._report.stop = 1
    with pytest.raises(SystemExit):
        run_trial(spec(whole))
    trained = []
    train(replace(whole, attempt=tasks.store.run(whole.key).begin_attempt()), ALONE, trained.append)
    assert [entry["epoch"] for entry in trained] == [2, 3]
    assert "test/accuracy" in tasks.store.run(whole.key).result()["test"]
    found = torch.load(tasks.store.run(whole.key).best().weights, weights_only=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_interrupted_trial_continues_where_it_was(tasks: Tasks, reported: list[int]):
    task = tasks.make(epochs=3)
    trial._report.stop = 2
    with pytest.raises(SystemExit):
        run_trial(spec(task))
    trial._report.stop, reported[:] = None, []
    run_trial(spec(task))
    assert reported == [1, 2, 3]
    assert tasks.store.run(task.key).newest().info["history"][0]["epoch"] == 1


def test_an_unrecoverable_trial_is_not_tried_again_by_the_same_submission(
    tasks: Tasks, reported: list[int]
):
    task = tasks.make(lr=1e30)
    with pytest.raises(Unrecoverable, match="the loss is not finite"):
        run_trial(spec(task))
    before = tasks.store.run(task.key).attempt()
    with pytest.raises(Unrecoverable, match="the loss is not finite"):
        run_trial(spec(task))
    assert tasks.store.run(task.key).attempt() == before
    with pytest.raises(Unrecoverable, match="the loss is not finite"):
        run_trial(spec(task, job="the next one"))
    assert tasks.store.run(task.key).attempt() == before + 1


def test_a_trial_waits_while_another_study_trains_the_same_run(tasks: Tasks, reported: list[int]):
    task, over = tasks.make(), threading.Event()
    owned = tasks.store.run(task.key).acquire("another study")
    assert owned is not None

    def work():
        run_trial(spec(task))
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert not over.wait(1.5)
    assert reported == []
    owned.close()
    thread.join(60)
    assert reported == [1, 2]


def test_a_trial_gives_up_waiting_for_an_owner_without_progress(tasks: Tasks):
    task = tasks.make()
    owned = tasks.store.run(task.key).acquire("study other")
    assert owned is not None
    with (
        owned,
        pytest.raises(Unrecoverable, match="study other has the same Run and makes no progress"),
    ):
        run_trial(spec(task, stall_seconds=0.3))
    assert tasks.store.run(task.key).ended("job") is None  # it is the other's to say how it ended


def test_the_watchdog_ends_a_trial_without_progress(
    tasks: Tasks, reported: list[int], monkeypatch: pytest.MonkeyPatch
):
    task, ended = tasks.make(), threading.Event()
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())

    def hang(*_):
        assert ended.wait(30)
        time.sleep(0.2)

    monkeypatch.setattr(trial, "train", hang)
    run_trial(spec(task, stall_seconds=0.3))
    assert ended.is_set()
    state, reason = Store(tasks.store.root).run(task.key).ended("job")
    assert (state, reason) == ("FAILED", "no progress for 0.005 minutes")


def chain(tasks: Tasks, **parent) -> tuple[Task, Task, dict]:
    """Return a rotation, a classification that starts from it, and the trial of both."""
    first = replace(tasks.make("rotation", **parent), attempt=0, tested=False)
    second = replace(tasks.make(lr=0.02), parent=first.key, parent_label="P[lr=0.01]")
    return first, second, spec(second, upstream=[(first, "val/loss")])


def test_an_upstream_run_is_trained_once_for_all_trials_and_not_reported(
    tasks: Tasks, reported: list[int]
):
    first, second, config = chain(tasks)
    run_trial(config)
    assert reported == [1, 2]  # of the second alone
    assert [len(tasks.store.run(task.key).history()) for task in (first, second)] == [2, 2]
    assert tasks.store.run(first.key).result() is None  # nor tested
    attempts = tasks.store.run(first.key).attempt()
    third = replace(tasks.make(lr=0.03), parent=first.key, parent_label="P[lr=0.01]")
    run_trial(spec(third, upstream=[(first, "val/loss")]))
    assert reported == [1, 2, 1, 2]
    assert tasks.store.run(first.key).attempt() == attempts


@pytest.mark.parametrize(("select", "better"), [("val/loss", min), ("val/accuracy", max)])
def test_a_trial_starts_from_the_epoch_that_its_parent_selects(
    tasks: Tasks, reported: list[int], monkeypatch: pytest.MonkeyPatch, select: str, better
):
    first, second, config = chain(tasks)
    config["upstream"][0] = (config["upstream"][0][0], select)
    trained, real = [], trial.train
    monkeypatch.setattr(trial, "train", lambda *a: (trained.append(a[0]), real(*a)))
    run_trial(config)
    figures = {int(entry["epoch"]): entry[select] for entry in tasks.store.run(first.key).history()}
    assert [task.parent_epoch for task in trained][0] is None
    assert figures[trained[1].parent_epoch] == better(figures.values())


def test_a_trial_whose_parent_fails_names_the_parent(tasks: Tasks, reported: list[int]):
    first, second, config = chain(tasks, lr=1e30)
    for _ in range(2):
        with pytest.raises(Unrecoverable, match=f"^{first.label}: the loss is not finite"):
            run_trial(config)
    assert tasks.store.run(first.key).attempt() == 2  # `make` had the first one
    assert reported == []


def test_a_parent_whose_checkpoint_is_damaged_is_trained_again(tasks: Tasks, reported: list[int]):
    first, second, config = chain(tasks)
    run_trial(config)
    for folder in tasks.store.run(first.key).path.glob("[es]p*_0*"):
        for file in folder.glob("*.pt"):
            damage(file, "cut")
    third = replace(tasks.make(lr=0.03), parent=first.key, parent_label="P[lr=0.01]")
    run_trial(spec(third, upstream=[(first, "val/loss")]))
    assert reported == [1, 2, 1, 2]
    assert tasks.store.run(first.key).newest() is not None
