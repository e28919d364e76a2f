"""A search between Ray Tune and the store: what is drawn, what is written down of each trial."""

from pathlib import Path

import pytest
from ray.tune.execution import class_cache
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule

from orchestrator.config.search_schema import Search
from orchestrator.config.study_loader import from_mapping
from orchestrator.execution.resources import ResourceRequest
from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.planning.prepare import build_caches, prepare, winners
from orchestrator.storage.checkpoints import Store
from orchestrator.storage.home import Home
from orchestrator.storage.trial_log import Trials
from orchestrator.tuning.ray_tune import keep_secrets, scheduler_of
from orchestrator.tuning.trial_worker import run_trial
from orchestrator.tuning.tuner import SearchContext, Tuner
from tests.conftest import ALONE
from trainables.engine.checkpoints import Unrecoverable

CONFIG = {"dataset": "d", "stem": "small", "epochs": 2, "batch_size": 16, "lr": 0.01}
SEARCH = {"trials": 3, "algorithm": "random", "space": {"lr": {"log": [1e-4, 0.1]}}, "then": {}}


class Listener:
    """Stands in a mirror's place and remembers what it was told of each label."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[str, ...]] = {}
        self.said: dict[str, str] = {}
        self.drawn: dict[str, dict | None] = {}

    def follow(self, run, drawn=None, ancestry=()) -> None:
        self.ends[run.label] = ("RUNNING",)
        self.drawn[run.label] = drawn

    def end(
        self, run, state: str, reason: str = "", outcome: str = "", drawn=None, ancestry=()
    ) -> None:
        self.ends[run.label] = (state, reason, outcome)

    def say(self, tags) -> None:
        self.said |= tags


def opened(
    digits_home: Home, search: dict, stages: dict | None = None, last: bool = True
) -> tuple[Tuner, Listener]:
    """stages: before the searched one, A, which starts from the last of them."""
    ahead = stages or {}
    stage = {"trainable": "classify", "config": CONFIG, "search": search}
    stage |= {"after": list(ahead)[-1]} if ahead else {}
    study = from_mapping(
        {
            "study": "s",
            "data": {"d": {"type": "digits", "limit": 60}},
            "stages": {**ahead, "A": stage},
        }
    )
    prepared = prepare(study, None, digits_home)
    (planned,) = prepared.searches
    tables = build_caches(prepared, digits_home, lambda name, done, total: None)
    place = SearchContext(digits_home, ResourceRequest(1, 1, 0.0), 1, tables, "job", 0)
    listener = Listener()
    return Tuner(planned, place, listener, last), listener  # type: ignore[arg-type]


def carried_out(tuner: Tuner, index: int, epochs: int) -> None:
    """Train a trial as its process would, until the scheduler ends it after so many epochs."""
    trial = tuner.book.draw(index)
    assert trial is not None
    tuner.book.on_trial_start(index)
    task = Task(**tuner.config_of(trial)["task"])
    store, left = Store(Path(task.store)), [epochs]

    def report(figures) -> None:
        tuner.book.on_epoch(index, int(figures["epoch"]), figures["val/accuracy"])
        left[0] -= 1
        if not left[0]:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(Task(**{**task.__dict__, "attempt": store.claim(task.key)}), ALONE, report)
    tuner.book.on_trial_complete(index)


def test_trials_are_written_down_as_they_end(digits_home: Home):
    tuner, listener = opened(digits_home, {**SEARCH, "seed": 11})
    carried_out(tuner, 0, epochs=2)
    carried_out(tuner, 1, epochs=1)
    found = Trials(tuner.book.store.folder(tuner.planned.key)).all()
    assert [trial.state for trial in found] == ["FINISHED", "STOPPED"]
    assert [trial.epochs for trial in found] == [2, 1]
    assert listener.ends[found[0].label] == ("FINISHED", "", "finished")
    assert listener.ends[found[1].label] == ("FINISHED", "", "stopped_early")
    assert '"FINISHED": 1, "STOPPED": 1' in listener.said["progress"]
    assert winners(tuner.book.store, tuner.planned) == []  # one is not tried yet
    tuner.book.draw(2)
    tuner.book.on_trial_start(2)
    tuner.book.on_trial_error(2, RuntimeError("the third"))
    assert listener.ends[tuner.book.trials.all()[2].label] == ("FAILED", "the third", "")
    assert winners(tuner.book.store, tuner.planned) == [found[0].values]


def test_a_second_driver_knows_what_the_first_has_found(digits_home: Home):
    form = {**SEARCH, "seed": 12}
    first, _ = opened(digits_home, form)
    carried_out(first, 0, epochs=2)
    lost = first.book.draw(1)
    first.book.on_trial_start(1)  # and then its driver dies
    second, listener = opened(digits_home, form)
    known = second.book.draw(0)
    assert known == first.book.trials.get(0)
    assert second.config_of(known)["epochs"] == 2
    second.book.on_trial_start(0)
    second.book.on_epoch(0, 1, 0.0)
    second.book.on_trial_complete(0)
    assert second.book.trials.get(0) == known
    assert listener.ends[known.label] == ("FINISHED", "", "finished")
    again = second.book.draw(1)
    assert (again.values, second.config_of(again)["epochs"]) == (lost.values, None)
    assert second.book.draw(2).values not in (known.values, lost.values)


def test_what_trials_start_from_is_told_when_a_trial_of_it_has_ended(
    digits_home: Home, monkeypatch: pytest.MonkeyPatch
):
    form = {
        "over": ["P", "A"],
        "algorithm": "grid",
        "space": {"P.lr": {"choice": [0.01, 1e30]}, "lr": {"choice": [0.01, 0.02]}},
        "then": {},
    }
    stages = {"P": {"trainable": "rotation", "config": CONFIG}}
    tuner, listener = opened(digits_home, form, stages)
    good, bad = "P[lr=0.01]", "P[lr=1e+30]"
    trials = [tuner.book.draw(index) for index in range(3)]
    assert [len(trial.ahead) for trial in trials] == [1, 1, 1]
    assert trials[0].ahead == trials[1].ahead != trials[2].ahead
    monkeypatch.setattr("orchestrator.trial._report", lambda figures: None)
    tuner.book.on_trial_start(0)
    assert listener.ends[good] == ("RUNNING",)
    assert (listener.drawn[good], listener.drawn[trials[0].label]) == (None, {"P.lr": 0.01})
    run_trial(tuner.config_of(trials[0]))
    tuner.book.on_trial_complete(0)
    assert listener.ends[good] == listener.ends[trials[0].label] == ("FINISHED", "", "finished")
    tuner.book.on_trial_start(1)
    assert listener.ends[good] == ("FINISHED", "", "finished")
    tuner.book.on_trial_error(1, None)  # killed: its parent is whole for all that
    assert listener.ends[good] == ("FINISHED", "", "finished")
    tuner.book.on_trial_start(2)
    with pytest.raises(Unrecoverable) as fault:
        run_trial(tuner.config_of(trials[2]))
    tuner.book.on_trial_error(2, fault.value)
    assert listener.ends[bad][0] == "FAILED"
    state, reason, _ = listener.ends[trials[2].label]
    assert (state, reason.startswith(f"{bad}: the loss is not finite")) == ("FAILED", True)


def test_what_a_trial_started_from_is_killed_with_it_and_goes_on_with_the_next(digits_home: Home):
    form = {**SEARCH, "over": ["P", "A"], "space": {"P.momentum": {"choice": [0.1, 0.2]}}}
    stages = {"P": {"trainable": "rotation", "config": CONFIG}}
    tuner, listener = opened(digits_home, form, stages)
    trial = tuner.book.draw(0)
    (parent, _) = tuner.planned.runs_of(trial.values)
    tuner.book.on_trial_start(0)
    tuner.book.on_trial_error(0, RuntimeError("its process died"))
    assert listener.ends[parent.label][0] == "KILLED"
    tuner.book.on_trial_start(0)
    assert listener.ends[parent.label] == ("RUNNING",)


def test_values_that_do_not_fit_together_are_a_failed_trial(digits_home: Home):
    space = {"epochs": {"choice": [1, 2]}, "warmup_epochs": {"choice": [0.0, 1.5]}}
    tuner, listener = opened(digits_home, {"algorithm": "grid", "space": space, "seed": 13})
    assert tuner.book.draw(0).state == "RUNNING"
    bad = tuner.book.draw(1)
    assert bad.state == "FAILED"
    assert "warm-up must end before training does" in bad.reason
    assert tuner.book.draw(3).state == "RUNNING"
    assert tuner.book.draw(4) is None
    assert listener.ends == {}


def test_a_trial_whose_process_was_dead_before_it_began_is_left_for_another_go(digits_home: Home):
    form = {**SEARCH, "seed": 13}
    tuner, listener = opened(digits_home, form, last=False)
    lost, struck, bad = [tuner.book.draw(index) for index in range(3)]
    tuner.book.on_trial_error(0, RuntimeError("its actor is dead"))
    tuner.book.on_trial_start(1)
    tuner.book.on_trial_restart(1)
    tuner.book.on_trial_error(1, RuntimeError("its actor is dead"))
    tuner.book.on_trial_start(2)
    tuner.book.on_trial_error(2, RuntimeError("its own fault"))
    assert tuner.book.lost == [0, 1]
    assert listener.ends == {
        struck.label: ("RUNNING",),
        bad.label: ("FAILED", "its own fault", ""),
    }
    again, listener = opened(digits_home, form)
    assert again.book.draw(0) == lost
    again.book.on_trial_error(
        0, RuntimeError("its actor is dead")
    )  # nobody tries it after this one
    assert listener.ends == {lost.label: ("FAILED", "its actor is dead", "")}


def test_no_secret_of_the_driver_is_written_into_a_trial_s_description(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    keep_secrets()
    actor = class_cache._ActorClassCache().get(type("Trainable", (), {}))
    told = actor._default_options["runtime_env"]["env_vars"]
    assert told["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.5"
    assert "secret" not in told.values()


def test_the_scheduler_counts_epochs():
    def scheduler(**form: object):
        return scheduler_of(Search.model_validate({**SEARCH, **form}), 9)

    assert type(scheduler()) is FIFOScheduler
    assert isinstance(scheduler(scheduler="median"), MedianStoppingRule)
    asha = scheduler(scheduler="asha", grace_epochs=20)
    assert isinstance(asha, AsyncHyperBandScheduler)
