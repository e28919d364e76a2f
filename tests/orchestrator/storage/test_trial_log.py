"""A search's notes: whole at any time, the best first, causes counted."""

import json
from pathlib import Path

from orchestrator.storage.trial_log import NAME, Trial, Trials, causes, counts, ranked


def a_trial(index: int, state: str = "FINISHED", figure: float | None = 0.5, **more) -> Trial:
    return Trial(index, {"lr": 0.1}, f"key{index}", f"A[{index}]", state, 3, figure, **more)


def test_what_is_written_down_is_read_again(tmp_path: Path):
    trials = Trials(tmp_path / "search")
    assert trials.all() == []
    trials.put(a_trial(1, ended=3.0), 4.5)
    trials.put(a_trial(0, "FAILED", None, reason="too high"), 5.0)
    again = Trials(tmp_path / "search")
    assert [trial.index for trial in again.all()] == [0, 1]
    assert again.get(1) == a_trial(1, ended=3.0)
    assert again.get(2) is None
    assert again.seconds == 5.0
    assert [trial.index for trial in again.all(1)] == [0]


def test_a_trial_of_an_older_store_is_read_under_the_new_names(tmp_path: Path):
    step = {"epoch": 1, "trial": 2, "values": {"lr": 0.2}}
    old = {"index": 0, "values": {"lr": 0.1}, "key": "k", "label": "A", "ahead": ["p"],
           "became": {"lr": 0.2}, "ancestry": [step]}  # fmt: skip
    (tmp_path / NAME).write_text(json.dumps({"trials": [old]}))
    trial = Trials(tmp_path).get(0)
    assert trial is not None
    assert (trial.upstream, trial.recipe, trial.lineage) == (["p"], {"lr": 0.2}, [step])


def test_a_search_has_found_when_all_have_ended_and_one_has_fared(tmp_path: Path):
    trials = Trials(tmp_path)
    trials.put(a_trial(0, "FAILED", None), 1.0)
    assert not trials.have_found(1)
    trials.put(a_trial(1, "RUNNING", 0.9), 1.0)
    assert not trials.have_found(2)
    trials.put(a_trial(1, "STOPPED"), 1.0)
    assert trials.have_found(2)
    assert not trials.have_found(3)
    trials.exhausted()
    assert Trials(tmp_path).have_found(3)


def test_the_best_comes_first_and_those_stopped_early_last():
    found = [a_trial(0, figure=0.5), a_trial(1, "STOPPED", 0.9), a_trial(2, figure=0.7),
             a_trial(3, "FAILED", 0.99), a_trial(4, figure=0.7)]  # fmt: skip
    assert [trial.index for trial in ranked(found, "max")] == [2, 4, 0, 1]
    assert [trial.index for trial in ranked(found, "min")] == [0, 2, 4, 1]


def test_epochs_say_the_figure_of_the_best_one():
    history = [{"epoch": n + 1, "val/loss": loss} for n, loss in enumerate([3.0, 1.0, 2.0])]
    trial = a_trial(0, figure=None).with_history(history, "val/loss", "min")
    assert (trial.epochs, trial.figure, trial.best) == (3, 1.0, 2)


def test_states_and_causes_are_counted():
    reasons = {1: "a", 2: "b at step 2 (7.5e+29)", 3: "b at step 11 (1e-3)"}
    found = [a_trial(0), *(a_trial(n, "FAILED", None, reason=why) for n, why in reasons.items())]
    assert counts(found) == {"FINISHED": 1, "FAILED": 3}
    assert causes(found) == [("b at step 2 (7.5e+29)", 2), ("a", 1)]
