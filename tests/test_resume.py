"""What a killed Run comes to is what it would have come to: bit for bit, whichever single file of
the store was damaged, whenever it was struck, with one epoch repeated at most. A finished one of a
few minutes is trained again where its only copy is damaged."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.storage.checkpoints import BACKED_UP_SECONDS
from orchestrator.storage.run_records import Store
from tests.conftest import ALONE, Tasks, damage
from tests.ledger import Reference, reference
from trainables.engine.checkpoints import Unrecoverable

EPOCHS = 4
QUIET = {"epochs": EPOCHS, "lr": 1.0e-6}  # too slow to get better: the first epoch is the best


def silent(figures: object) -> None:
    """A report that is thrown away."""


def in_memory() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of megabytes pass through it here."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        yield Path(folder)


memory = pytest.fixture(in_memory)
module_memory = pytest.fixture(scope="module")(in_memory)


@pytest.fixture(scope="module")
def calm(digits_home, module_memory) -> tuple[Task, Reference]:
    """An undisturbed run, and what it came to."""
    tasks = Tasks(digits_home, module_memory / "calm")
    task = replace(tasks.make(**QUIET), seed=1)  # of this seed the first epoch is the best
    train(task, ALONE, silent)
    found = reference(tasks.store, {"only": task.key})
    assert found["only"].best == 1  # long gone when the last epoch is trained
    return task, found


def in_a_process(task: Task, strike: Callable[[int], None]) -> None:
    """Train in another process, which `strike` kills by its id."""
    process = multiprocessing.get_context("fork").Process(target=train, args=(task, ALONE, silent))
    process.start()
    assert process.pid is not None
    strike(process.pid)
    process.join()
    assert process.exitcode == -9


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def go_on(task: Task, store: Store) -> list[object]:
    """Train to the end as a new attempt. Returns a figure for every epoch that was trained."""
    trained: list[object] = []
    train(
        replace(task, store=str(store.root), attempt=store.run(task.key).begin_attempt()),
        ALONE,
        trained.append,
    )
    return trained


def at(store: Store, key: str, epochs: float) -> bool:
    progress = store.run(key).progress()
    return progress is not None and progress["done"] >= epochs


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("moment", ["mid-epoch", "between epochs", "while saving", "while pruning"])
def test_a_run_killed_at_any_moment_loses_nothing(calm, memory, monkeypatch, moment):
    monkeypatch.setattr("trainables.engine.loop._PROGRESS_SECONDS", 0.0)
    task, wanted = calm
    store = Store(memory / "store")
    task = replace(task, store=str(store.root), attempt=store.run(task.key).begin_attempt())
    folder = store.run(task.key).path
    conditions: dict[str, Callable[[], object]] = {
        "mid-epoch": lambda: at(store, task.key, 2.4),
        "between epochs": lambda: at(store, task.key, 2.0),
        "while saving": lambda: list(folder.glob(".epoch_00003.*/weights.pt")),
        "while pruning": lambda: (folder / "epoch_00004").exists(),
    }

    def strike(pid: int) -> None:
        until(conditions[moment])
        os.kill(pid, 9)

    in_a_process(task, strike)
    left = max(store.run(task.key).epochs())
    assert len(go_on(task, store)) == EPOCHS - left
    assert reference(store, {"only": task.key}) == wanted


@pytest.fixture(scope="module")
def struck(calm, module_memory) -> Path:
    """The store of a run that was killed after three epochs."""
    task, _ = calm
    store = Store(module_memory / "struck")

    class Struck(Exception):
        pass

    def report(figures: dict) -> None:
        if figures["epoch"] == 3:
            raise Struck

    with pytest.raises(Struck):
        train(
            replace(task, store=str(store.root), attempt=store.run(task.key).begin_attempt()),
            ALONE,
            report,
        )
    store.run(task.key).log_file(1, 0).write_text("")
    return store.root


FILES = [
    *(f"epoch_0000{n}/{name}" for n in (2, 3)
      for name in ("weights.pt", "training.pt", "model.json", "manifest.json")),
    *(f"{place}_00001/{name}" for place in ("epoch", "spare")
      for name in ("weights.pt", "model.json", "manifest.json")),
    "attempt",
    "progress.json",
    "features/epoch_00001.npz",
]  # fmt: skip


HOW = ["zeroed", *(pytest.param(how, marks=pytest.mark.slow) for how in ("cut", "missing"))]


def test_every_file_of_the_store_is_damaged_below(calm, struck):
    folder = struck / calm[0].key
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert {name for name in found if not name.startswith((".", "logs/"))} == set(FILES)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", FILES)
def test_one_damaged_file_costs_one_epoch_at_most(calm, struck, memory, caplog, name, how):
    task, wanted = calm
    shutil.copytree(struck, memory / "store")
    store = Store(memory / "store")
    damage(store.run(task.key).path / name, how)
    trained = go_on(task, store)
    assert reference(store, {"only": task.key}) == wanted
    newest = name.startswith("epoch_00003/")
    assert len(trained) == (2 if newest else 1)
    if newest:
        assert f"{name.partition('/')[2]} is missing or damaged" in caplog.text


@pytest.mark.parametrize("long", [True, False])
@pytest.mark.parametrize("how", HOW)
def test_a_finished_run_survives_a_damaged_file_too(calm, memory, how, long):
    """One that trained for long has all it needs twice; a short one is trained again where the best
    checkpoint is damaged."""
    task, wanted = calm
    whole = Store(shutil.copytree(task.store, memory / "whole"))
    if long:
        whole.run(task.key).writer(task.attempt).shrink(1, BACKED_UP_SECONDS)
    names = [p.relative_to(whole.root) for p in whole.root.rglob("*") if p.is_file()]
    trained = {}
    for number, name in enumerate(name for name in names if name.name != ".lock"):
        store = Store(shutil.copytree(whole.root, memory / str(number)))
        damage(store.root / name, how)
        if store.run(task.key).result() is None:
            trained[str(name.relative_to(task.key))] = len(go_on(task, store))
        assert reference(store, {"only": task.key}) == wanted
    best = {f"epoch_00001/{name}": EPOCHS for name in ("weights.pt", "model.json", "manifest.json")}
    assert trained == ({} if long else best)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 700 MB that can be filled, and made read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only who may mount a small disk can fill it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """Use a disk up but for `left` bytes."""
    path = folder / "filler"
    with path.open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - left)
    return path


@pytest.mark.parametrize("left", [0, 20_000, 1_500_000])
def test_a_full_disk_stops_the_run_which_goes_on_once_there_is_room(calm, small_disk, left):
    task, wanted = calm
    store = Store(small_disk / "store")
    task = replace(task, store=str(store.root), attempt=store.run(task.key).begin_attempt())
    filler = fill(small_disk, left)
    with pytest.raises(
        Unrecoverable, match=r"nothing can be written .*No space left.*free some space"
    ):
        train(task, ALONE, silent)
    assert all(store.run(task.key).load(epoch) for epoch in store.run(task.key).epochs())
    filler.unlink()
    go_on(task, store)
    assert reference(store, {"only": task.key}) == wanted


def test_a_disk_that_turns_read_only_stops_the_run_too(calm, small_disk):
    task, wanted = calm
    store = Store(small_disk / "store")
    task = replace(task, store=str(store.root), attempt=store.run(task.key).begin_attempt())

    def report(figures: dict) -> None:
        """It is refused as long as a file is being written."""
        until(lambda: store.run(task.key).newest() is not None)
        command = ["mount", "-o", "remount,ro", str(small_disk)]
        until(lambda: subprocess.run(command, capture_output=True).returncode == 0)

    with pytest.raises(Unrecoverable, match="Read-only file system"):
        train(task, ALONE, report)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert len(go_on(task, store)) == EPOCHS - 1
    assert reference(store, {"only": task.key}) == wanted
