"""How long a study takes is estimated from what Runs of the same kind took."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planning.estimates import (
    Estimate,
    Task,
    Times,
    estimate,
    kind_of,
    known_times,
    last_end,
    stored_runs,
)
from orchestrator.planning.plan import FORMAT
from orchestrator.planning.run import Run
from orchestrator.storage.run_records import ATTEMPT, DONE, Store
from tests.conftest import finish_run

ONE = Run(
    stage="full",
    label="full",
    seed=0,
    key="0" * 20,
    parent=None,
    parent_label=None,
    trainable="classify",
    select="val/accuracy",
    predicts=True,
    artifacts="",
    config={"epochs": 4, "lr": 0.1, "batch_size": 16, "backbone": "resnet18"},
    dataset="d",
    weights=None,
    code="c",
)


def finish(store: Store, run: Run, seconds: float, epochs: int, around: float = 0.0) -> None:
    """Leave a finished Run that took `around` seconds beside its training."""
    finish_run(store, run.key, seconds, epochs)
    now = time.time()
    os.utime(store.run(run.key).path / ATTEMPT, (now - seconds - around,) * 2)
    os.utime(store.run(run.key).path / DONE, (now, now))


@pytest.mark.parametrize(
    ("tasks", "slots", "seconds"),
    [
        ([], 2, 0.0),
        ([Task("a", None, 10.0)], 2, 10.0),
        ([Task("a", None, 10.0), Task("b", None, 10.0)], 2, 10.0),
        ([Task("a", None, 10.0), Task("b", None, 10.0)], 1, 20.0),
        ([Task("a", None, 10.0), Task("b", "a", 5.0)], 2, 15.0),
        ([Task("b", "done before", 5.0)], 2, 5.0),
        ([Task("a", None, 6.0), Task("b", None, 2.0), Task("c", None, 3.0)], 2, 6.0),
        ([Task("a", None, 4.0), Task("b", None, 9.0, running=True)], 1, 13.0),
    ],
)
def test_the_last_task_ends_when_slots_and_parents_allow(
    tasks: list[Task], slots: int, seconds: float
) -> None:
    assert last_end(tasks, slots) == seconds


def test_runs_of_a_kind_differ_in_seed_epochs_and_decimals_alone() -> None:
    same = replace(ONE, seed=3, key="1" * 20, config={**ONE.config, "lr": 0.5, "epochs": 9})
    assert kind_of(same) == kind_of(ONE)
    for other in ({"batch_size": 32}, {"backbone": "resnet50"}):
        assert kind_of(replace(ONE, config={**ONE.config, **other})) != kind_of(ONE)
    assert kind_of(replace(ONE, dataset="e")) != kind_of(ONE)
    assert kind_of(replace(ONE, trainable="rotation")) != kind_of(ONE)


def test_times_are_the_medians_of_finished_runs(tmp_path: Path) -> None:
    store = Store(tmp_path)
    runs = [replace(ONE, key=str(number) * 20, seed=number) for number in range(4)]
    for run, seconds, epochs, around in zip(
        runs, (8.0, 40.0, 6.0), (4, 4, 2), (1.0, 2.0, 9.0), strict=False
    ):
        finish(store, run, seconds, epochs, around)  # 2, 10, 3 s an epoch; the last never ran
    times = known_times(store, runs, [ONE])
    assert times.paces == {kind_of(ONE): 3.0} and times.around == pytest.approx(2.0)
    assert times.seconds(ONE) == pytest.approx(14.0)
    assert times.seconds(ONE, done=3.0) == pytest.approx(5.0)
    assert times.seconds(replace(ONE, trainable="rotation")) is None


def test_a_few_runs_of_the_kinds_that_are_wanted_are_read(tmp_path: Path) -> None:
    store, other = Store(tmp_path), replace(ONE, key="f" * 20, trainable="rotation")
    finish(store, other, 8.0, 4)
    runs = [replace(ONE, key=f"{number:020}", seed=number) for number in range(22)]
    for run in runs:
        finish(store, run, 800.0 if run.seed >= 20 else 8.0 + run.seed, 4)
    times = known_times(store, [other, *runs], [ONE])
    assert times.paces == {kind_of(ONE): (8.0 + 9.5) / 4}  # the median of the first twenty


def test_a_run_with_a_second_attempt_does_not_tell_what_is_around_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run(ONE.key).begin_attempt()
    finish(store, ONE, 8.0, 4, around=100.0)
    assert known_times(store, [ONE], [ONE]) == Times({kind_of(ONE): 2.0}, 0.0)


def test_what_is_left_counts_and_what_never_ran_is_named() -> None:
    second = replace(ONE, key="1" * 20, seed=1)
    other = replace(ONE, key="2" * 20, label="late", trainable="rotation")
    times = Times({kind_of(ONE): 2.0})
    assert estimate([ONE, second], times, {}, 2) == Estimate(8.0, 16.0)
    assert estimate([ONE, second], times, {second.key: 3.0}, 1) == Estimate(10.0, 10.0)
    assert estimate([ONE, other, other], times, {}, 1) == Estimate(8.0, 8.0, ("late",))
    assert estimate([ONE, second], replace(times, around=1.0), {}, 2).seconds == 9.0


def test_the_runs_of_stored_plans_are_known(tmp_path: Path) -> None:
    plan = {"format": FORMAT, "study": "one"}
    text = json.dumps({**plan, "runs": [dict(vars(ONE))]})
    (tmp_path / "one.json").write_text(text)
    (tmp_path / "old.json").write_text('{"format": 1, "study": "old"}')
    (tmp_path / "damaged.json").write_text(text[: len(text) // 2])
    assert stored_runs(tmp_path) == [ONE]
