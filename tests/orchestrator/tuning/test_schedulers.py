"""The schedulers that a study may name, and how trials of PBT wait for each other."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import get_args

import pytest
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.config.search_schema import SchedulerName, Search
from orchestrator.tuning.schedulers import SCHEDULERS, PbtHooks, Setup, SynchronousPBT
from tests.orchestrator.tuning.searches import SEARCH


def test_the_table_has_every_scheduler_that_a_study_may_name():
    assert set(SCHEDULERS) == set(get_args(SchedulerName))


def test_schedulers_count_epochs():
    def build(**form: object):
        search = Search.model_validate({**SEARCH, **form})
        return SCHEDULERS[search.scheduler](Setup(search, 9))

    assert type(build()) is FIFOScheduler
    assert isinstance(build(scheduler="median"), MedianStoppingRule)
    asha = build(scheduler="asha", grace_epochs=20)
    assert isinstance(asha, AsyncHyperBandScheduler)

    with pytest.raises(ValueError, match="needs the hooks of a population"):
        build(scheduler="pbt")


class Controller:
    """The part of Ray Tune that a scheduler sees."""

    def __init__(self, count: int) -> None:
        self.trials = [FakeTrial(index) for index in range(count)]

    def get_trials(self) -> list["FakeTrial"]:
        return self.trials

    def pause_trial(self, trial: "FakeTrial", should_checkpoint: bool) -> None:
        assert not should_checkpoint
        trial.status = TuneTrial.PAUSED


class FakeTrial(SimpleNamespace):
    def __init__(self, index: int) -> None:
        super().__init__(trial_id=str(index), config={"trial": index}, status=TuneTrial.PENDING)

    def is_finished(self) -> bool:
        return self.status in (TuneTrial.TERMINATED, TuneTrial.ERROR)

    def set_config(self, config: dict) -> None:
        self.config = config


def test_all_trials_wait_at_the_boundary_even_when_one_fails():
    boundary, evolved, drawn = [2], [], [False]

    def evolve(indices: Sequence[int]) -> dict[int, dict]:
        evolved.append(list(indices))
        boundary[0] += 2
        return {index: {"trial": index, "round": len(evolved)} for index in indices}

    scheduler = SynchronousPBT(PbtHooks(lambda: boundary[0], evolve, lambda: drawn[0], 2))
    controller = Controller(3)
    first, second, third = controller.trials
    for trial in (first, second):
        assert scheduler.choose_trial_to_run(controller) is trial
        trial.status = TuneTrial.RUNNING
        result = {"epoch": 2, "ended": 0.0}
        assert scheduler.on_trial_result(controller, trial, result) == TrialScheduler.NOOP
        assert trial.status == TuneTrial.PAUSED
    controller.trials = [first, second]
    assert scheduler.choose_trial_to_run(controller) is None  # the third is not drawn yet
    drawn[0], controller.trials = True, [first, second, third]
    assert scheduler.choose_trial_to_run(controller) is third
    third.status = TuneTrial.RUNNING
    assert scheduler.choose_trial_to_run(controller) is None
    third.status = TuneTrial.ERROR
    assert scheduler.choose_trial_to_run(controller) is first
    assert evolved == [[0, 1]]
    assert second.config == {"trial": 1, "round": 1}
    assert scheduler.choose_trial_to_run(controller) is first  # asking changes nothing
    assert evolved == [[0, 1]]
    first.status = TuneTrial.PENDING  # Ray Tune looks for a process
    assert scheduler.choose_trial_to_run(controller) is second
    first.status = second.status = TuneTrial.RUNNING
    assert scheduler.choose_trial_to_run(controller) is None
    result = {"epoch": 4, "ended": 1.0}
    assert scheduler.on_trial_result(controller, first, result) == TrialScheduler.CONTINUE
