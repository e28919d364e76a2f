"""Whether a Run whose process died is tried again: deaths by kind, and progress between them."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.driver.retries import Retries, saved_parts
from orchestrator.execution.failures import Death, Ending, Outcome
from orchestrator.needs.deaths import MaxFailures
from orchestrator.needs.resources import Resources
from orchestrator.storage.run_records import RunFolder, Store

KEY = "0123456789abcdef0123"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = Store(tmp_path).run(KEY)
    folder.begin_attempt()
    return folder


def save(run: RunFolder, epoch: int) -> None:
    run.writer(run.attempt()).save(epoch, {}, {"history": []})


def died(kind: Death) -> Outcome:
    return Outcome(Ending.KILLED, f"died of {kind}", kind)


def test_a_run_that_dies_at_the_same_place_is_given_up_and_says_how_often(run):
    retries = Retries(run, MaxFailures(crash=2))
    crash = died(Death.CRASH)
    assert [retries.goes_on(crash) for _ in range(3)] == [True, True, False]
    assert retries.explain(crash) == (
        "died of crash; 3 times without a new checkpoint between them"
    )


def test_a_run_that_may_not_die_says_only_why_it_did(run):
    retries = Retries(run, MaxFailures(crash=0))
    assert not retries.goes_on(died(Death.CRASH))
    assert retries.explain(died(Death.CRASH)) == "died of crash"


def test_a_checkpoint_between_two_deaths_makes_the_count_begin_anew(run):
    retries = Retries(run, MaxFailures(node=1))
    for epoch in range(1, 8):
        assert retries.goes_on(died(Death.NODE))
        save(run, epoch)
    assert retries.goes_on(died(Death.NODE))
    assert not retries.goes_on(died(Death.NODE))


def test_an_image_that_a_producer_has_finished_is_progress_too(run):
    retries = Retries(run, MaxFailures(memory=1))
    assert retries.goes_on(died(Death.MEMORY))
    (run.path / "produced").mkdir()
    (run.path / "produced" / "0001.done").write_text('{"files": {}, "figures": {}}')
    assert saved_parts(run) == 1
    assert retries.goes_on(died(Death.MEMORY))
    assert not retries.goes_on(died(Death.MEMORY))


def test_deaths_of_one_kind_leave_those_of_another_uncounted(run):
    retries = Retries(run, MaxFailures(crash=1, node=1))
    assert retries.goes_on(died(Death.CRASH))
    assert retries.goes_on(died(Death.NODE))
    assert not retries.goes_on(died(Death.CRASH))


def test_every_kind_of_death_has_a_limit():
    assert set(MaxFailures.model_fields) == set(Death)
    for kind in Death:
        assert MaxFailures(**{kind: 7}).of(kind) == 7


def test_one_number_limits_every_kind_of_death():
    limits = Resources.model_validate({"max_failures": 5}).max_failures
    assert {limits.of(kind) for kind in Death} == {5}
    mixed = Resources.model_validate({"max_failures": {"node": 50}}).max_failures
    assert (mixed.of(Death.NODE), mixed.of(Death.CRASH)) == (50, 2)


@pytest.mark.parametrize("value", [-1, 1.5, "2", True, None, [2]])
def test_a_limit_that_is_no_number_is_refused_in_one_line(value):
    with pytest.raises(ValidationError) as raised:
        Resources.model_validate({"max_failures": value})
    assert [error["msg"] for error in raised.value.errors()] == [
        f"Value error, must be a whole number of 0 or more, or a mapping, not {value!r}"
    ]
