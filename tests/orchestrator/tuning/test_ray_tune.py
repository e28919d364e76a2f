"""Ray Tune is given the trials in order, and no secret of the driver."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.tune
from ray.tune.execution import class_cache
from ray.tune.search import Searcher

from orchestrator.storage.home import Home
from orchestrator.tuning.ray_tune import TrialFeed, cause_of, keep_secrets
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


DIED = """Failure # 1 (occurred at 2026-11-30_18-48-20)
The actor died unexpectedly before finishing this task.
\tclass_name: wrap_function.<locals>.ImplicitFunc
\tpid: 16639
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR \
Worker exit detail: Worker exits unexpectedly. Some common causes include: (1) memory.
"""
RAISED = """Failure # 2 (occurred at 2026-11-30_18-49-20)
\x1b[36mray::ImplicitFunc.train()\x1b[39m (pid=16639, ip=192.0.2.2)
  File "study.py", line 16, in f
    M(x="a")
    ^^^^^^^^
pydantic_core._pydantic_core.ValidationError: 1 validation error for M
x
  Input should be a valid integer
"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (DIED, "its process died: Worker exits unexpectedly."),
        (DIED + RAISED, "ValidationError: 1 validation error for M x"),
        (RAISED + DIED, "its process died: Worker exits unexpectedly."),
        ("Failure # 1 (at noon)\nThe actor is unavailable.\n", "its process died"),
    ],
)
def test_the_cause_of_a_failed_trial_is_its_last_failure_in_a_line(tmp_path, text, cause):
    file = tmp_path / "error.txt"
    file.write_text(text, encoding="utf-8")
    assert cause_of(file).startswith(cause)
    assert "\n" not in cause_of(file) and "\x1b" not in cause_of(file)


def fail_in_a_trial(config: Mapping[str, Any]) -> None:
    if config["how"] == "raise":
        raise ValueError("a wrong rate")
    os._exit(3)


@pytest.mark.slow
def test_ray_tune_writes_why_a_trial_failed(tmp_path):
    """Breaks where Ray Tune writes the cause otherwise than in 2.60."""
    heard = {}

    class Listener(ray.tune.Callback):
        def on_trial_error(self, iteration, trials, trial, **info):
            heard[trial.config["how"]] = cause_of(Path(trial.error_file))

    config = ray.tune.RunConfig(callbacks=[Listener()], verbose=0, storage_path=str(tmp_path))
    space = {"how": ray.tune.grid_search(["raise", "exit"])}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        ray.tune.Tuner(fail_in_a_trial, param_space=space, run_config=config).fit()
    finally:
        ray.shutdown()
    assert heard["raise"] == "ValueError: a wrong rate"
    assert heard["exit"].startswith("its process died: Worker ")
