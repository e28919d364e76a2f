"""Small parts that several test files need: a home, a tiny data set, one task, gloo ranks."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from orchestrator.config.study_loader import from_mapping
from orchestrator.execution.task import Task
from orchestrator.planning.prepare import build_caches, prepare
from orchestrator.planning.run import Run
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from tests.mlflow_server import mlflow_server
from trainables.numerics.distributed import World

torch.set_num_threads(1)


_WHOLE = "tests/integration/"
# of those, what is by itself: a home of its own anyway, or one that shares nothing with the rest
_ALONE = {
    f"{_WHOLE}test_byol.py": "studies",
    f"{_WHOLE}test_segmentation.py": "studies",
    f"{_WHOLE}test_chaos.py": "chaos",
}


def _scope(nodeid: str) -> str:
    """Tests of one scope run one after the other in one process, and share its services."""
    file = nodeid.partition("::")[0]
    return _ALONE.get(file, "services" if file.startswith(_WHOLE) else file)


class ByScope(LoadScopeScheduling):
    """With `-n`, tests of one scope stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return ByScope(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest scope first, and last what is by itself: any free worker takes it."""
    order = {"services": 0, "studies": 2, "chaos": 3}
    items.sort(key=lambda item: order.get(_scope(item.nodeid), 1))


@functools.cache
def _go_to_the_background() -> None:
    """Lower this process's priority to that of Ray's workers. Otherwise it would starve those of
    the whole studies that another process tests meanwhile."""
    os.nice(15)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and _scope(item.nodeid) != "services":
        _go_to_the_background()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def mlflow_uri(tmp_path: Path) -> Iterator[str]:
    """The address of a server of its own, whose runs and artifacts lie in `tmp_path`."""
    with mlflow_server(tmp_path) as uri:
        yield uri


@pytest.fixture(scope="session")
def digits_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home whose cache of the digits is built once."""
    return Home(tmp_path_factory.mktemp("digits")).create()


SMALL = {
    "dataset": "digits",
    "backbone": "resnet10_slim",
    "small_input": True,
    "batch_size": 16,
    "lr": 0.01,
    "epochs": 2,
    "checkpoint_every": {"epochs": 1},  # by default such short epochs have none
}


def task_of(run: Run, table: Path, store: Store) -> Task:
    """A Run without a parent, claimed."""
    return Task.of(run, table, store.root, store.run(run.key).begin_attempt())


class Tasks:
    """Tasks of a study over a few digits, with a store of their own."""

    def __init__(self, digits_home: Home, store: Path) -> None:
        self.home, self.store = digits_home, Store(store)

    def make(self, trainable: str = "classify", **config: object) -> Task:
        """A claimed task with the given configuration."""
        study = from_mapping(
            {
                "study": "small",
                "data": {"digits": {"type": "digits", "limit": 60}},
                "stages": {"only": {"trainable": trainable, "config": {**SMALL, **config}}},
                "compare": {"metric": "test/loss"},
            }
        )
        prepared = prepare(study, None, self.home)
        tables = build_caches(prepared, self.home, lambda name, done, total: None)
        (run,) = prepared.runs
        return task_of(run, tables[run.dataset], self.store)


@pytest.fixture
def tasks(digits_home: Home, tmp_path: Path) -> Tasks:
    return Tasks(digits_home, tmp_path / "store")


def finish_run(store: Store, key: str, seconds: float, epochs: int) -> None:
    """Leave what a finished Run leaves in the store, as far as plans and tables read it."""
    writer = store.run(key).writer(store.run(key).begin_attempt())
    history = [{"epoch": epoch, "val/accuracy": 0.5} for epoch in range(1, epochs + 1)]
    writer.save(epochs, {"weights.pt": lambda path: path.write_bytes(b"w")}, {"history": history})
    result = {"history": history, "best_epoch": epochs, "test": {}, "facts": {}}
    writer.finish({**result, "seconds": seconds})


ALONE = World(0, 1, torch.device("cpu"))


def damage(path: Path, how: str) -> None:
    """Do to a file what crashes and disks do. how: missing, cut, zeroed, empty or one bit."""
    content = path.read_bytes()
    middle = len(content) // 2
    left = {
        "cut": content[:middle],
        "zeroed": bytes(len(content)),
        "empty": b"",
        "one bit": content[:middle]
        + bytes(byte ^ 1 for byte in content[middle : middle + 1])
        + content[middle + 1 :],
    }
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(left[how])


def real_data(*parts: str) -> Path:
    """A folder of the real images; skips where there are none."""
    root = os.environ.get("ORCHESTRATOR_DATA")
    if root is None or not Path(root, *parts).is_dir():
        pytest.skip(f"ORCHESTRATOR_DATA names no folder with {'/'.join(parts)}")
    return Path(root, *parts)
