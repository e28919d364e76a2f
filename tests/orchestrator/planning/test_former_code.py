"""Code that trains as its former text did keeps the version of that, until it changes."""

from pathlib import Path

import pytest

from orchestrator.planning import code_version as versions
from orchestrator.planning.former_code import FORMER
from tests.orchestrator.planning.test_code_version import add, copied, every, forget
from trainables.optimizers.registry import OPTIMIZERS
from trainables.schedules.registry import SCHEDULES
from trainables.tasks.registry import BUILT_IN, PRODUCERS, TRAINABLES

__all__ = ["copied"]  # a fixture
STEP = "trainables.engine.step"


def counted() -> set[str]:
    """Every module that counts for some Run."""
    chosen = [OPTIMIZERS.module(name) for name in OPTIMIZERS]
    chosen += [function.__module__ for function in SCHEDULES.values()]
    trained = [BUILT_IN.module(name) for name in BUILT_IN]
    made = [PRODUCERS.module(name) for name in PRODUCERS]
    training = versions.reached(versions.TRAINING, versions.PROBE, *chosen, *trained)
    return {*training, *versions.reached(versions.BATCH_INFERENCE, *made)}


def test_every_entry_is_of_code_that_there_is() -> None:
    """One that is not has ended: remove it from `former_code.py`."""
    digests = {versions.digest(module) for module in counted()}
    assert sorted(FORMER.keys() - digests) == []


def test_no_former_code_is_there_still() -> None:
    assert not FORMER.keys() & {digest for digests in FORMER.values() for digest in digests}


def test_code_that_is_named_keeps_all_versions_until_it_changes_again(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, now = every(), versions.digest(STEP)
    former = FORMER.get(now, (now,))
    add(copied / "trainables/engine/step.py")
    after = every()
    assert all(after[task] != before[task] for task in TRAINABLES)
    monkeypatch.setitem(FORMER, versions.digest(STEP), former)
    assert every() == before
    add(copied / "trainables/engine/evaluation.py")
    assert all(every()[task] != before[task] for task in TRAINABLES)
    add(copied / "trainables/engine/step.py")
    forget()
    assert versions.digest(STEP) not in FORMER
