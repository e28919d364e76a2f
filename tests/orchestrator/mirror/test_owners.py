"""A driver owns keys in its home and in the store, and the home gets what the store has."""

from pathlib import Path

import pytest

from orchestrator.mirror.node_copy import NodeCopy
from orchestrator.mirror.owners import Owners
from orchestrator.mirror.run_copy import RunCopy
from orchestrator.objects.address import open_objects
from orchestrator.objects.head import read_head
from orchestrator.storage.run_records import RunFolder, StaleWriter, Store
from tests.conftest import finish_run


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "lab")


def owners(tmp_path: Path, home: str, address: str) -> Owners:
    return Owners(Store(tmp_path / home), address, home)


def test_without_a_store_the_kernels_lock_decides(tmp_path: Path) -> None:
    one, two = Owners(Store(tmp_path)), Owners(Store(tmp_path))
    with one.acquire("k", "study a") as owned:  # type: ignore[union-attr]
        assert [owned.begin_attempt(), owned.begin_attempt()] == [1, 2]
        assert two.acquire("k", "study b") is None and two.owner("k") == "study a"
        owned.collect()
    with two.acquire("k", "study b") as owned:  # type: ignore[union-attr]
        assert owned.begin_attempt() == 3
    assert not one.fetch(["k"])


def test_two_homes_with_one_store_do_not_train_the_same(tmp_path: Path, address: str) -> None:
    one, two = owners(tmp_path, "one", address), owners(tmp_path, "two", address)
    with one.acquire("k", "study a") as owned:  # type: ignore[union-attr]
        assert owned.begin_attempt() == 1
        assert two.acquire("k", "study b") is None and two.owner("k") == "study a"
    two = owners(tmp_path, "two", address)
    with two.acquire("k", "study b") as other:  # type: ignore[union-attr]
        assert other.begin_attempt() == 2
        with pytest.raises(StaleWriter):
            owned.begin_attempt()


def test_a_home_gets_finished_runs(tmp_path: Path, address: str) -> None:
    store, objects = Store(tmp_path / "one"), open_objects(address)
    finish_run(store, "k", 1.0, 2)
    assert not owners(tmp_path, "one", address).fetch(["k", "never"])  # the store gets it
    assert read_head(objects, "k").owner is None
    assert owners(tmp_path, "two", address).fetch(["k", "never"])
    there = Store(tmp_path / "two")
    assert there.run("k").result() == store.run("k").result() and there.run("k").best()
    assert not RunCopy(objects, there.run("never")).fetch()
    assert not (tmp_path / "two" / "never").exists()


def test_a_home_with_more_attempts_than_the_store_goes_on_counting(
    tmp_path: Path, address: str
) -> None:
    run = Store(tmp_path / "one").run("k")
    run.begin_attempt()
    run.begin_attempt()
    with owners(tmp_path, "one", address).acquire("k", "study a") as owned:  # type: ignore[union-attr]
        assert owned.begin_attempt() == 3 == run.attempt()
    assert read_head(open_objects(address), "k").attempt == 3


def test_a_driver_hears_what_its_workers_say_elsewhere(tmp_path: Path, address: str) -> None:
    with owners(tmp_path, "one", address).acquire("k", "study a") as owned:  # type: ignore[union-attr]
        attempt = owned.begin_attempt()
        node = Store(tmp_path / "node").run("k")
        node.log_file(attempt, 0).write_text("it said this")
        with NodeCopy(open_objects(address), node, attempt, 0):
            finish_run_of(node, attempt)
        owned.collect()
    here = Store(tmp_path / "one").run("k")
    assert here.result() == node.result() is not None
    assert here.logs()[attempt, 0].read_text() == "it said this"


def finish_run_of(run: RunFolder, attempt: int) -> None:
    writer = run.writer(attempt)
    writer.save(1, {"weights.pt": lambda path: path.write_bytes(b"w")}, {"history": []})
    writer.finish({"history": [], "best_epoch": 1, "test": {}, "facts": {}, "seconds": 1.0})
