"""What the sync to MLflow is given of trials and of the upstream Runs that they train."""

import pytest

from orchestrator.storage.home import Home
from orchestrator.tuning.trial_worker import run_trial
from tests.orchestrator.tuning.searches import CONFIG, SEARCH, open_search
from trainables.engine.checkpoints import Unrecoverable


def test_an_upstream_run_is_reported_when_a_trial_of_it_has_ended(
    digits_home: Home, monkeypatch: pytest.MonkeyPatch
):
    form = {
        "over": ["P", "A"],
        "algorithm": "grid",
        "space": {"P.lr": {"choice": [0.01, 1e30]}, "lr": {"choice": [0.01, 0.02]}},
        "then": {},
    }
    stages = {"P": {"trainable": "rotation", "config": CONFIG}}
    tuner, sync = open_search(digits_home, form, stages)
    good, bad = "P[lr=0.01]", "P[lr=1e+30]"
    trials = [tuner.book.draw(index) for index in range(3)]
    assert [len(trial.upstream) for trial in trials] == [1, 1, 1]
    assert trials[0].upstream == trials[1].upstream != trials[2].upstream
    monkeypatch.setattr("orchestrator.tuning.trial_worker._report", lambda figures: None)
    tuner.book.on_trial_start(0)
    assert sync.ends[good] == ("RUNNING",)
    assert (sync.drawn[good], sync.drawn[trials[0].label]) == (None, {"P.lr": 0.01})
    run_trial(tuner.config_of(trials[0]))
    tuner.book.on_trial_complete(0)
    assert sync.ends[good] == sync.ends[trials[0].label] == ("FINISHED", "", "finished")
    tuner.book.on_trial_start(1)
    assert sync.ends[good] == ("FINISHED", "", "finished")
    tuner.book.on_trial_error(1, "its process died")  # killed: its parent is whole for all that
    assert sync.ends[good] == ("FINISHED", "", "finished")
    tuner.book.on_trial_start(2)
    with pytest.raises(Unrecoverable) as fault:
        run_trial(tuner.config_of(trials[2]))
    tuner.book.on_trial_error(2, str(fault.value))
    assert sync.ends[bad][0] == "FAILED"
    state, reason, _ = sync.ends[trials[2].label]
    assert (state, reason.startswith(f"{bad}: the loss is not finite")) == ("FAILED", True)


def test_an_upstream_run_is_killed_with_its_trial_and_followed_with_the_next(
    digits_home: Home,
):
    form = {**SEARCH, "over": ["P", "A"], "space": {"P.momentum": {"choice": [0.1, 0.2]}}}
    stages = {"P": {"trainable": "rotation", "config": CONFIG}}
    tuner, sync = open_search(digits_home, form, stages)
    trial = tuner.book.draw(0)
    (parent, _) = tuner.planned.runs_of(trial.values)
    tuner.book.on_trial_start(0)
    tuner.book.on_trial_error(0, "its process died")
    assert sync.ends[parent.label][0] == "KILLED"
    tuner.book.on_trial_start(0)
    assert sync.ends[parent.label] == ("RUNNING",)
