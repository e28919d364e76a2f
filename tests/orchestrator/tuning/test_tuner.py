"""What the process of a trial is given, and how many epochs the longest trial has."""

from dataclasses import asdict

from orchestrator.planning.placement import ResourceRequest
from orchestrator.storage.home import Home
from tests.orchestrator.tuning.searches import CONFIG, SEARCH, open_search


def test_the_process_of_a_trial_gets_its_run_and_its_resources(digits_home: Home):
    tuner, _ = open_search(digits_home, {**SEARCH, "seed": 31, "stall_minutes": 2})
    trial = tuner.book.draw(0)
    config = tuner.config_of(trial)
    assert (config["trial"], config["epochs"], config["upstream"]) == (0, None, [])
    request = asdict(ResourceRequest(1, 1, 0.0))
    assert config["request"] == request
    assert config["stall_seconds"] == 120.0
    task = config["task"]
    assert (task["key"], task["label"], task["seed"]) == (trial.key, trial.label, 31)
    assert task["config"]["lr"] == trial.values["lr"]
    assert (task["tested"], task["attempt"], task["until"]) == (False, 0, None)


def test_upstream_tasks_come_first_with_the_metric_that_selects_their_epoch(digits_home: Home):
    form = {**SEARCH, "over": ["P", "A"], "space": {"P.momentum": {"choice": [0.1, 0.2]}}}
    stages = {"P": {"trainable": "rotation", "config": CONFIG}}
    tuner, _ = open_search(digits_home, form, stages)
    trial = tuner.book.draw(0)
    config = tuner.config_of(trial)
    ((upstream, select),) = config["upstream"]
    assert [upstream["key"]] == trial.upstream
    assert config["task"]["parent"] == upstream["key"]
    assert select == tuner.planned.runs_of(trial.values)[0].select


def test_the_longest_trial_bounds_the_scheduler(digits_home: Home):
    tuner, _ = open_search(digits_home, {**SEARCH, "seed": 32})
    assert tuner._most_epochs() == CONFIG["epochs"]
    space = {"epochs": {"uniform": [2, 9]}}
    tuner, _ = open_search(digits_home, {**SEARCH, "space": space, "seed": 32})
    assert tuner._most_epochs() == 9
