"""What is drawn, and what is written down of each trial."""

import pytest

from orchestrator.planning.search_plan import best_configurations
from orchestrator.storage.home import Home
from orchestrator.storage.trial_log import Trials
from tests.orchestrator.tuning.searches import SEARCH, open_search, run_one


def test_trials_are_written_down_as_they_end(digits_home: Home):
    tuner, sync = open_search(digits_home, {**SEARCH, "seed": 11})
    run_one(tuner, 0, epochs=2)
    run_one(tuner, 1, epochs=1)
    found = Trials(tuner.book.store.run(tuner.planned.key).path).all()
    assert [trial.state for trial in found] == ["FINISHED", "STOPPED"]
    assert [trial.epochs for trial in found] == [2, 1]
    assert sync.ends[found[0].label] == ("FINISHED", "", "finished")
    assert sync.ends[found[1].label] == ("FINISHED", "", "stopped_early")
    assert '"FINISHED": 1, "STOPPED": 1' in sync.tags["progress"]
    assert best_configurations(tuner.book.store, tuner.planned) == []  # one is not tried yet
    tuner.book.draw(2)
    tuner.book.on_trial_start(2)
    tuner.book.on_trial_error(2, "the third")
    assert sync.ends[tuner.book.trials.all()[2].label] == ("FAILED", "the third", "")
    assert best_configurations(tuner.book.store, tuner.planned) == [found[0].values]


def test_a_second_driver_continues_with_the_trials_of_the_first(digits_home: Home):
    form = {**SEARCH, "seed": 12}
    first, _ = open_search(digits_home, form)
    run_one(first, 0, epochs=2)
    lost = first.book.draw(1)
    first.book.on_trial_start(1)  # and then its driver dies
    second, sync = open_search(digits_home, form)
    known = second.book.draw(0)
    assert known == first.book.trials.get(0)
    assert second.config_of(known)["epochs"] == 2
    second.book.on_trial_start(0)
    second.book.on_epoch(0, 1, 0.0)
    second.book.on_trial_complete(0)
    assert second.book.trials.get(0) == known
    assert sync.ends[known.label] == ("FINISHED", "", "finished")
    again = second.book.draw(1)
    assert (again.values, second.config_of(again)["epochs"]) == (lost.values, None)
    assert second.book.draw(2).values not in (known.values, lost.values)


def test_values_that_do_not_fit_together_are_a_failed_trial(digits_home: Home):
    space = {"epochs": {"choice": [1, 2]}, "warmup_epochs": {"choice": [0.0, 1.5]}}
    tuner, sync = open_search(digits_home, {"algorithm": "grid", "space": space, "seed": 13})
    assert tuner.book.draw(0).state == "RUNNING"
    bad = tuner.book.draw(1)
    assert bad.state == "FAILED"
    assert "warm-up must end before training does" in bad.reason
    assert tuner.book.draw(3).state == "RUNNING"
    assert tuner.book.draw(4) is None
    assert sync.ends == {}


def test_a_trial_whose_process_died_before_it_began_is_left_for_another_try(digits_home: Home):
    form = {**SEARCH, "seed": 13}
    tuner, sync = open_search(digits_home, form, last=False)
    lost, struck, bad = [tuner.book.draw(index) for index in range(3)]
    tuner.book.on_trial_error(0, "its actor is dead")
    tuner.book.on_trial_start(1)
    tuner.book.on_trial_restart(1)
    tuner.book.on_trial_error(1, "its actor is dead")
    tuner.book.on_trial_start(2)
    tuner.book.on_trial_error(2, "its own fault")
    assert tuner.book.lost == [0, 1]
    assert sync.ends == {
        struck.label: ("RUNNING",),
        bad.label: ("FAILED", "its own fault", ""),
    }
    again, sync = open_search(digits_home, form)
    assert again.book.draw(0) == lost
    again.book.on_trial_error(0, "its actor is dead")  # no later try of the submission follows
    assert sync.ends == {lost.label: ("FAILED", "its actor is dead", "")}


def test_a_trial_that_was_not_drawn_is_named(digits_home: Home):
    tuner, _ = open_search(digits_home, {**SEARCH, "seed": 14})
    with pytest.raises(LookupError, match="search A has not drawn trial 2"):
        tuner.book.on_trial_start(2)


def test_what_a_search_ended_with_is_sent_again(digits_home: Home):
    form = {**SEARCH, "seed": 15}
    tuner, _ = open_search(digits_home, form)
    run_one(tuner, 0, epochs=2)
    again, sync = open_search(digits_home, form)
    again.book.send_all()
    assert sync.ends == {tuner.book.get(0).label: ("FINISHED", "", "finished")}
    assert '"FINISHED": 1' in sync.tags["progress"]


def test_the_outcome_names_the_most_frequent_failure(digits_home: Home):
    tuner, _ = open_search(digits_home, {**SEARCH, "seed": 16})
    book = tuner.book
    assert book.outcome() == ("FAILED", "it was interrupted before all of its trials had ended")
    for index in range(3):
        book.draw(index)
        book.on_trial_start(index)
        book.on_trial_error(index, f"out of memory in step {index}")
    wanted = "no trial came to its end: out of memory in step 0 (3 of 3 trials)"
    assert book.outcome() == ("FAILED", wanted)


def test_a_trial_of_a_population_is_reported_with_its_first_key(digits_home: Home):
    form = {"trials": 4, "algorithm": "random", "scheduler": "pbt", "space": SEARCH["space"]}
    tuner, sync = open_search(digits_home, {**form, "then": {}, "seed": 3})
    trial = tuner.book.draw(0)
    tuner.book.on_trial_start(0)
    assert sync.first_keys[trial.label] == trial.key
    plain, sync = open_search(digits_home, {**SEARCH, "seed": 3})
    trial = plain.book.draw(0)
    plain.book.on_trial_start(0)
    assert sync.first_keys[trial.label] == ""
