"""Real images, where ORCHESTRATOR_DATA names a folder with them: what the built-in studies find
there, and that a network learns from them."""

from pathlib import Path

import pytest

from orchestrator.config.study_loader import read
from orchestrator.execution.worker import train
from orchestrator.planning.prepare import Prepared, build_caches, prepare
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from tests.conftest import ALONE, real_data, task_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("photographs")).create()


def prepared(study: str, home: Home, part: str, *settings: str) -> Prepared:
    return prepare(read(study, settings), real_data(part).parent, home)


def sizes(made: Prepared, name: str) -> dict[str, int]:
    return {part: len(rows) for part, rows in made.data[name].source.parts.items()}


def test_byol_objects_finds_classes_that_its_target_does_not_have(home: Home) -> None:
    made = prepared("byol_objects", home, "objects")
    found = {name: item.source for name, item in made.data.items()}
    assert len(found["pretrain"].classes) > 1 and len(found["target"].classes) > 1
    assert not set(found["pretrain"].classes) & set(found["target"].classes)
    for name in found:
        assert min(sizes(made, name).values()) > 100
    assert len(made.runs) == 24


def test_cifar10_small_tests_with_all_of_the_test_images(home: Home) -> None:
    made = prepared("cifar10_small", home, "cifar10")
    assert len(made.data["cifar10"].source.classes) == 10
    found = sizes(made, "cifar10")
    assert found["test"] == 10_000 and found["train"] + found["val"] == 2_000


def test_a_network_learns_from_photographs(home: Home, tmp_path: Path) -> None:
    settings = ("stages.A.config.epochs=2", "stages.A.config.precision=float32")
    made = prepared("byol_objects", home, "objects", *settings)
    (run,) = [run for run in made.runs if (run.stage, run.seed) == ("A", 0)]
    tables, store = build_caches(made, home, lambda name, done, total: None), Store(tmp_path)
    train(task_of(run, tables[run.dataset], store), ALONE, lambda figures: None)
    result = store.run(run.key).result()
    assert result is not None
    first, last = (entry["train/loss"] for entry in result["history"])
    assert last < first
    assert result["test"]["test/accuracy"] > 1.5 / len(made.data["target"].source.classes)
