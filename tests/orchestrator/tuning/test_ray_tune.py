"""Ray Tune is given the trials in order, and no secret of the driver."""

import pytest
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from orchestrator.storage.home import Home
from orchestrator.tuning.ray_tune import TrialFeed, keep_secrets
from tests.orchestrator.tuning.searches import SEARCH, open_search


def test_no_secret_of_the_driver_is_in_the_description_of_a_trial(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    keep_secrets()
    actor = class_cache._ActorClassCache().get(type("Trainable", (), {}))
    told = actor._default_options["runtime_env"]["env_vars"]
    assert told["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.5"
    assert "secret" not in told.values()


def test_trials_whose_values_do_not_fit_together_are_passed_over(digits_home: Home):
    space = {"epochs": {"choice": [1, 2]}, "warmup_epochs": {"choice": [0.0, 1.5]}}
    form = {**SEARCH, "algorithm": "grid", "space": space, "seed": 17}
    form.pop("trials")
    tuner, _ = open_search(digits_home, form)
    feed = TrialFeed(tuner.book, tuner.config_of, 4)
    given = [feed.suggest(str(number)) for number in range(3)]
    assert [config["trial"] for config in given] == [0, 2, 3]
    assert feed.all_drawn
    assert feed.suggest("3") == Searcher.FINISHED
