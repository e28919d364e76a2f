"""A Run's folder and its copy in a store become equal, whole or not at all, and are verified."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.mirror.run_copy import RunCopy
from orchestrator.objects.cloud import open_memory
from orchestrator.objects.contract import Objects, ObjectsError
from orchestrator.objects.head import head_name, read_head
from orchestrator.objects.lease import Claims, Lease
from orchestrator.storage.checkpoints import TRAINING, WEIGHTS
from orchestrator.storage.run_records import RunFolder, StaleWriter, Store

KEY = "k1"


@pytest.fixture
def objects() -> Objects:
    return open_memory()


@pytest.fixture
def lease(objects: Objects) -> Lease:
    lease = Claims(objects, "home").claim(KEY, "study")
    assert lease is not None
    return lease


def disk(tmp_path: Path, name: str) -> RunFolder:
    """The Run's folder on a host."""
    return Store(tmp_path / name).run(KEY)


def save(run: RunFolder, attempt: int, epoch: int, word: str = "") -> None:
    files = {
        name: lambda path, name=name: path.write_text(f"{name} {epoch} {word}")
        for name in (WEIGHTS, TRAINING)
    }
    history = [{"epoch": float(number + 1)} for number in range(epoch)]
    run.writer(attempt).save(epoch, files, {"history": history})


def finish(run: RunFolder, attempt: int, best: int) -> None:
    result = {"history": [], "best_epoch": best, "test": {}, "facts": {}, "seconds": 1.0}
    run.writer(attempt).finish(result)
    run.writer(attempt).shrink(best, 1.0)


def content(run: RunFolder) -> Mapping[str, bytes]:
    return {str(path.relative_to(run.path)): path.read_bytes()
            for path in run.path.rglob("*") if path.is_file() and path.name[0] != "."}  # fmt: skip


def test_a_run_goes_on_on_another_disk(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    here, there = disk(tmp_path, "here"), disk(tmp_path, "there")
    attempt = here.begin_attempt(lease.begin_attempt())
    save(here, attempt, 1)
    assert RunCopy(objects, here).commit(attempt) == 1
    save(here, attempt, 2)
    here.writer(attempt).put_optional("features/epoch_00001.npz", lambda p: p.write_bytes(b"f"))
    assert RunCopy(objects, here).commit(attempt) == 2
    assert RunCopy(objects, there).fetch()
    newest = there.newest()
    assert newest is not None and newest.epoch == 2
    assert newest.weights.read_text() == f"{WEIGHTS} 2 "
    assert content(there) == {k: v for k, v in content(here).items() if k != "attempt"}
    there.begin_attempt(lease.begin_attempt())
    save(there, 2, 3)
    finish(there, 2, 1)
    RunCopy(objects, there).commit(2)
    shutil.rmtree(here.path)
    assert RunCopy(objects, here).fetch() and here.result() == there.result()
    assert here.best() is not None and here.best().epoch == 1  # type: ignore[union-attr]


def test_a_store_that_has_nothing_leaves_a_folder_alone(tmp_path: Path, objects: Objects) -> None:
    run = disk(tmp_path, "here")
    save(run, run.begin_attempt(), 1)
    assert not RunCopy(objects, run).fetch() and run.epochs() == [1]


def test_an_older_attempt_sends_nothing_that_counts(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    old, new = disk(tmp_path, "old"), disk(tmp_path, "new")
    first = old.begin_attempt(lease.begin_attempt())
    save(old, first, 1)
    RunCopy(objects, old).commit(first)
    second = new.begin_attempt(lease.begin_attempt())
    save(old, first, 2, "of the old one")
    with pytest.raises(StaleWriter, match="attempt 2 has taken over"):
        RunCopy(objects, old).commit(first)
    RunCopy(objects, new).fetch()
    assert new.epochs() == [1]
    save(new, second, 2)
    RunCopy(objects, new).commit(second)
    assert RunCopy(objects, old).fetch()
    assert (old.path / "epoch_00002" / WEIGHTS).read_text() == f"{WEIGHTS} 2 "


def test_an_attempt_that_is_overtaken_while_it_sends_changes_nothing(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    run = disk(tmp_path, "here")
    attempt = run.begin_attempt(lease.begin_attempt())
    save(run, attempt, 1)

    class Overtaken:
        """A store in which another attempt begins once the files are there."""

        address = "memory"

        def __getattr__(self, name: str) -> object:
            return getattr(objects, name)

        def put(self, name: str, content: bytes) -> None:
            objects.put(name, content)
            if read_head(objects, KEY).attempt == attempt:
                lease.begin_attempt()

    with pytest.raises(StaleWriter):
        RunCopy(Overtaken(), run).commit(attempt)  # type: ignore[arg-type]
    assert read_head(objects, KEY).files == {}


@pytest.mark.parametrize("file", [WEIGHTS, "manifest.json"])
@pytest.mark.parametrize("how", ["gone", "other"])
def test_the_newest_checkpoint_that_verifies_is_taken(
    tmp_path: Path, objects: Objects, lease: Lease, file: str, how: str
) -> None:
    here, there = disk(tmp_path, "here"), disk(tmp_path, "there")
    attempt = here.begin_attempt(lease.begin_attempt())
    for epoch in (1, 2):
        save(here, attempt, epoch)
    RunCopy(objects, here).commit(attempt)
    name = read_head(objects, KEY).files[f"epoch_00002/{file}"].object(KEY)
    if how == "gone":
        objects.delete([name])
    else:
        objects.put(name, b"something else")
    RunCopy(objects, there).fetch()
    assert there.newest() is not None and there.newest().epoch == 1  # type: ignore[union-attr]


def test_what_a_disk_has_of_another_life_goes(
    tmp_path: Path, objects: Objects, lease: Lease
) -> None:
    here, there = disk(tmp_path, "here"), disk(tmp_path, "there")
    first = here.begin_attempt(lease.begin_attempt())
    save(here, first, 1)
    RunCopy(objects, here).commit(first)
    save(here, first, 2, "never sent")
    RunCopy(objects, here).fetch()
    assert here.epochs() == [1, 2]  # this disk was the last to send: it may go on from there
    second = there.begin_attempt(lease.begin_attempt())
    RunCopy(objects, there).fetch()
    save(there, second, 2)
    RunCopy(objects, there).commit(second)
    RunCopy(objects, here).fetch()
    assert here.epochs() == [1, 2]
    assert (here.path / "epoch_00002" / WEIGHTS).read_text() == f"{WEIGHTS} 2 "


def test_objects_that_no_head_names_go(tmp_path: Path, objects: Objects, lease: Lease) -> None:
    run = disk(tmp_path, "here")
    attempt = run.begin_attempt(lease.begin_attempt())
    for epoch in range(1, 5):
        save(run, attempt, epoch)
        run.writer(attempt).prune(1)
        RunCopy(objects, run).commit(attempt)
    objects.put(f"{KEY}/{attempt}/{'0' * 64}", b"left by one that died")
    RunCopy(objects, run).tidy(attempt)
    files = read_head(objects, KEY).files.values()
    assert objects.list(KEY) == sorted({head_name(KEY), *(file.object(KEY) for file in files)})


def test_a_damaged_head_is_said(tmp_path: Path, objects: Objects) -> None:
    objects.put(head_name(KEY), b"{}}")
    with pytest.raises(ObjectsError, match="k1/head.json is damaged"):
        RunCopy(objects, disk(tmp_path, "here")).fetch()
