"""A worker trains on its own disk, and a store is enough for another host to go on, bit for bit."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.mirror.images import fetch_images, send_images
from orchestrator.mirror.live import Live
from orchestrator.mirror.node_copy import NodeCopy
from orchestrator.mirror.run_copy import RunCopy
from orchestrator.objects.address import open_objects
from orchestrator.objects.cloud import open_memory
from orchestrator.objects.head import read_head
from orchestrator.objects.lease import Claims
from orchestrator.storage.run_records import StaleWriter, Store
from tests.conftest import ALONE, Tasks
from tests.ledger import Reference, reference

EPOCHS = 3


class Struck(Exception):
    """What ends a training of these tests."""


def silent(figures: object) -> None:
    """A report that is thrown away."""


@pytest.fixture(scope="module")
def calm(digits_home, tmp_path_factory) -> Iterator[tuple[Task, Reference]]:
    """An undisturbed run that knows no store, and what it came to."""
    tasks = Tasks(digits_home, tmp_path_factory.mktemp("calm"))
    task = tasks.make(epochs=EPOCHS)
    train(task, ALONE, silent)
    yield task, reference(tasks.store, {"only": task.key})


def on_host(task: Task, host: Path, address: str, home: str, least: int = 1) -> tuple[Task, object]:
    """The task as a driver of a home begins it for a host that has nothing but a disk."""
    lease = Claims(open_objects(address), home, expire_seconds=0).claim(task.key, "test")
    assert lease is not None
    attempt = lease.begin_attempt(least)
    table = host / "cache" / Path(task.table).name
    return replace(
        task, store=str(host / "store"), table=str(table), objects=address, attempt=attempt
    ), lease


@pytest.fixture
def address(tmp_path: Path, calm: tuple[Task, Reference]) -> str:
    """A store that has the images."""
    send_images(open_objects(str(tmp_path / "lab")), Path(calm[0].table))
    return str(tmp_path / "lab")


def until_second(figures: dict) -> None:
    if figures["epoch"] == 2:
        raise Struck


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new is sent at once."""
    monkeypatch.setattr("orchestrator.mirror.node_copy._LIVE_SECONDS", 0.01)


@pytest.mark.usefixtures("quick")
def test_another_host_goes_on_bit_for_bit(
    calm: tuple[Task, Reference], tmp_path: Path, address: str
) -> None:
    task, wanted = calm
    first, lease = on_host(task, tmp_path / "one", address, "home")
    objects = open_objects(address)

    def report(figures: dict) -> None:
        while len(epochs_of(read_head(objects, task.key).files)) < min(figures["epoch"], 2):
            threading.Event().wait(0.01)
        until_second(figures)

    with pytest.raises(Struck):
        train(first, ALONE, report)
    second, _ = on_host(task, tmp_path / "two", address, "home")
    trained: list[object] = []
    train(second, ALONE, trained.append)
    assert len(trained) == EPOCHS - 2
    store = Store(tmp_path / "two" / "store")
    assert reference(store, {"only": task.key}) == wanted
    third = Store(tmp_path / "three" / "store")
    assert RunCopy(objects, third.run(task.key)).fetch()
    assert reference(third, {"only": task.key}) == wanted


def epochs_of(files: dict[str, object]) -> set[str]:
    return {name.partition("/")[0] for name in files if name.startswith("epoch_")}


@pytest.mark.usefixtures("quick")
def test_a_training_that_is_overtaken_ends_and_changes_nothing(
    calm: tuple[Task, Reference], tmp_path: Path, address: str
) -> None:
    old, lease = on_host(calm[0], tmp_path / "one", address, "home")

    def report(figures: dict) -> None:
        on_host(calm[0], tmp_path / "two", address, "home")  # its driver was taken for dead
        threading.Event().wait(0.2)

    with pytest.raises(StaleWriter):
        train(replace(old, config={**old.config, "epochs": 300}), ALONE, report)
    assert read_head(open_objects(address), old.key).files.keys() <= {"usage.json"}


def test_progress_names_no_epoch_that_the_store_lacks(tmp_path: Path) -> None:
    objects, run = open_memory(), Store(tmp_path / "one").run("k")
    run.begin_attempt()
    facts = {"done": 2.5, "total": 9, "history": [{"epoch": 1.0}, {"epoch": 2.0}], "facts": {}}
    run.writer(1).report(facts)
    run.log_file(1, 0).write_text("said")
    live = Live(objects, run, 1)
    live.send_progress(1)
    live.send_log(0)
    there = Store(tmp_path / "two").run("k")
    Live(objects, there, 1).fetch_progress()
    Live(objects, there, 1).fetch_logs()
    progress = there.progress()
    assert progress is not None and progress["history"] == [{"epoch": 1.0}]
    assert progress["done"] == 2.5 and there.logs()[1, 0].read_text() == "said"
    Live(objects, run, 1).fetch_progress()  # its own disk knows better
    assert len(json.loads((run.path / "progress.json").read_text())["history"]) == 2


def test_a_disk_that_knows_more_than_an_emptied_store_is_said(tmp_path: Path) -> None:
    objects, run = open_memory(), Store(tmp_path / "one").run("k")
    for _ in range(3):
        run.begin_attempt()
    lease = Claims(objects, "home").claim("k", "test")
    assert lease is not None
    with pytest.raises(Exception, match="was emptied: it is at attempt 1"):
        NodeCopy(objects, run, lease.begin_attempt(), 0)
    with pytest.raises(StaleWriter):
        NodeCopy(objects, run, 2, 0)


@pytest.mark.parametrize("damage", [lambda o, n: o.delete([n]), lambda o, n: o.put(n, b"other")])
def test_damaged_images_are_not_taken(tmp_path: Path, damage: Callable[..., None]) -> None:
    objects, table = open_memory(), tmp_path / "here" / "abc"
    (table / "features").mkdir(parents=True)
    (table / "images.bin").write_bytes(b"12")
    (table / "features" / "own.bin").write_bytes(b"of this node")
    send_images(objects, table)
    fetch_images(objects, tmp_path / "there" / "abc")
    assert [path.name for path in (tmp_path / "there" / "abc").iterdir()] == ["images.bin"]
    (name,) = [name for name in objects.list("images") if not name.endswith("files.json")]
    damage(objects, name)
    with pytest.raises(OSError, match="images.bin of abc is damaged"):
        fetch_images(objects, tmp_path / "elsewhere" / "abc")
    assert not (tmp_path / "elsewhere" / "abc").exists()


def test_a_list_of_files_is_fetched_too(tmp_path: Path) -> None:
    objects, listing = open_memory(), tmp_path / "files-1.json"
    listing.write_text("[]")
    send_images(objects, listing)
    fetch_images(objects, tmp_path / "there" / listing.name)
    assert (tmp_path / "there" / listing.name).read_text() == "[]"
    with pytest.raises(OSError, match="has no images other"):
        fetch_images(objects, tmp_path / "other")
