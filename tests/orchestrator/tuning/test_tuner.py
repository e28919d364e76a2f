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
from orchestrator.tuning.trial_worker import try_on_ray
from orchestrator.tuning.tuner import SearchContext, SearchRun
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


def begun(
    digits_home: Home, search: dict, stages: dict | None = None, last: bool = True
) -> tuple[SearchRun, Listener]:
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
    return SearchRun(planned, place, listener, last), listener  # type: ignore[arg-type]


def carried_out(search: SearchRun, index: int, epochs: int) -> None:
    """Train a trial as its process would, until the scheduler ends it after so many epochs."""
    trial = search.draw(index)
    assert trial is not None
    search.begun(index)
    task = Task(**search.attempt(trial)["task"])
    store, left = Store(Path(task.store)), [epochs]

    def report(figures) -> None:
        search.heard(index, int(figures["epoch"]), figures["val/accuracy"])
        left[0] -= 1
        if not left[0]:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(Task(**{**task.__dict__, "attempt": store.claim(task.key)}), ALONE, report)
    search.ended(index)


def test_trials_are_written_down_as_they_end(digits_home: Home):
    search, listener = begun(digits_home, {**SEARCH, "seed": 11})
    carried_out(search, 0, epochs=2)
    carried_out(search, 1, epochs=1)
    found = Trials(search.store.folder(search.planned.key)).all()
    assert [trial.state for trial in found] == ["FINISHED", "STOPPED"]
    assert [trial.epochs for trial in found] == [2, 1]
    assert listener.ends[found[0].label] == ("FINISHED", "", "finished")
    assert listener.ends[found[1].label] == ("FINISHED", "", "stopped_early")
    assert '"FINISHED": 1, "STOPPED": 1' in listener.said["progress"]
    assert winners(search.store, search.planned) == []  # one is not tried yet
    search.draw(2)
    search.begun(2)
    search.failed(2, RuntimeError("the third"))
    assert listener.ends[search.trials.all()[2].label] == ("FAILED", "the third", "")
    assert winners(search.store, search.planned) == [found[0].values]


def test_a_second_driver_knows_what_the_first_has_found(digits_home: Home):
    form = {**SEARCH, "seed": 12}
    first, _ = begun(digits_home, form)
    carried_out(first, 0, epochs=2)
    lost = first.draw(1)
    first.begun(1)  # and then its driver dies
    second, listener = begun(digits_home, form)
    known = second.draw(0)
    assert known == first.trials.get(0)
    assert second.attempt(known)["epochs"] == 2
    second.begun(0)
    second.heard(0, 1, 0.0)
    second.ended(0)
    assert second.trials.get(0) == known
    assert listener.ends[known.label] == ("FINISHED", "", "finished")
    again = second.draw(1)
    assert (again.values, second.attempt(again)["epochs"]) == (lost.values, None)
    assert second.draw(2).values not in (known.values, lost.values)


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
    search, listener = begun(digits_home, form, stages)
    good, bad = "P[lr=0.01]", "P[lr=1e+30]"
    trials = [search.draw(index) for index in range(3)]
    assert [len(trial.ahead) for trial in trials] == [1, 1, 1]
    assert trials[0].ahead == trials[1].ahead != trials[2].ahead
    monkeypatch.setattr("orchestrator.trial._report", lambda figures: None)
    search.begun(0)
    assert listener.ends[good] == ("RUNNING",)
    assert (listener.drawn[good], listener.drawn[trials[0].label]) == (None, {"P.lr": 0.01})
    try_on_ray(search.attempt(trials[0]))
    search.ended(0)
    assert listener.ends[good] == listener.ends[trials[0].label] == ("FINISHED", "", "finished")
    search.begun(1)
    assert listener.ends[good] == ("FINISHED", "", "finished")
    search.failed(1, None)  # killed: its parent is whole for all that
    assert listener.ends[good] == ("FINISHED", "", "finished")
    search.begun(2)
    with pytest.raises(Unrecoverable) as fault:
        try_on_ray(search.attempt(trials[2]))
    search.failed(2, fault.value)
    assert listener.ends[bad][0] == "FAILED"
    state, reason, _ = listener.ends[trials[2].label]
    assert (state, reason.startswith(f"{bad}: the loss is not finite")) == ("FAILED", True)


def test_what_a_trial_started_from_is_killed_with_it_and_goes_on_with_the_next(digits_home: Home):
    form = {**SEARCH, "over": ["P", "A"], "space": {"P.momentum": {"choice": [0.1, 0.2]}}}
    stages = {"P": {"trainable": "rotation", "config": CONFIG}}
    search, listener = begun(digits_home, form, stages)
    trial = search.draw(0)
    (parent, _) = search.planned.runs_of(trial.values)
    search.begun(0)
    search.failed(0, RuntimeError("its process died"))
    assert listener.ends[parent.label][0] == "KILLED"
    search.begun(0)
    assert listener.ends[parent.label] == ("RUNNING",)


def test_values_that_do_not_fit_together_are_a_failed_trial(digits_home: Home):
    space = {"epochs": {"choice": [1, 2]}, "warmup_epochs": {"choice": [0.0, 1.5]}}
    search, listener = begun(digits_home, {"algorithm": "grid", "space": space, "seed": 13})
    assert search.draw(0).state == "RUNNING"
    bad = search.draw(1)
    assert bad.state == "FAILED"
    assert "warm-up must end before training does" in bad.reason
    assert search.draw(3).state == "RUNNING"
    assert search.draw(4) is None
    assert listener.ends == {}


def test_a_trial_whose_process_was_dead_before_it_began_is_left_for_another_go(digits_home: Home):
    form = {**SEARCH, "seed": 13}
    search, listener = begun(digits_home, form, last=False)
    lost, struck, bad = [search.draw(index) for index in range(3)]
    search.failed(0, RuntimeError("its actor is dead"))
    search.begun(1)
    search.struck(1)
    search.failed(1, RuntimeError("its actor is dead"))
    search.begun(2)
    search.failed(2, RuntimeError("its own fault"))
    assert search.lost == [0, 1]
    assert listener.ends == {
        struck.label: ("RUNNING",),
        bad.label: ("FAILED", "its own fault", ""),
    }
    again, listener = begun(digits_home, form)
    assert again.draw(0) == lost
    again.failed(0, RuntimeError("its actor is dead"))  # nobody tries it after this one
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
