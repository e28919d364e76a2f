"""With `folds` and no `fold` each seed tests another fold, the one that its parent does."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import from_mapping
from orchestrator.config.yaml_loader import apply_setting
from orchestrator.planning.prepare import Prepared, build_caches, prepare
from orchestrator.planning.run import by_written_name, fold_of
from orchestrator.storage.home import Home
from tests.conftest import SMALL
from trainables.loading.image_table import open_table

STUDY: dict[str, Any] = {
    "study": "folds",
    "data": {"digits": {"type": "digits", "folds": 3}},
    "stages": {
        "P": {"trainable": "rotation", "config": dict(SMALL)},
        "C": {"trainable": "classify", "after": "P", "config": dict(SMALL)},
    },
    "seeds": [0, 1, 2],
}


def prepared(home: Home, *settings: str) -> Prepared:
    mapping = copy.deepcopy(STUDY)
    for setting in settings:
        apply_setting(mapping, setting)
    return prepare(from_mapping(mapping), None, home)


def test_seeds_are_a_whole_cross_validation(digits_home: Home) -> None:
    found = prepared(digits_home)
    tests = [item.source.parts["test"] for item in found.data.values()]
    assert sorted(np.concatenate(tests)) == list(range(1797))
    for run in found.runs:
        fold = fold_of(run.config["dataset"])
        assert fold and (fold.data, fold.count, fold.number) == ("digits", 3, run.seed)
        assert run.dataset == found.data[fold.name].fingerprint
    keys = {run.key: run for run in found.runs}
    children = [run for run in found.runs if run.parent]
    assert len(keys) == 6 and len(children) == 3
    assert all(keys[str(run.parent)].dataset == run.dataset for run in children)
    assert found.notes == (
        "digits: the Run of seed s tests fold s mod 3, and learns from the others",
    )
    assert not found.remarks


def test_a_fold_by_seed_is_the_fold_that_can_be_named(digits_home: Home) -> None:
    """Seed 4 tests fold 1 of 3; a study that names the fold has the same Runs."""
    by_seed = prepared(digits_home, "seeds=[4]")
    named = prepared(digits_home, "seeds=[4]", "data.digits.fold=1")
    assert [run.key for run in by_seed.runs] == [run.key for run in named.runs]
    other = prepared(digits_home, "seeds=[4]", "data.digits.fold=0")
    assert not {run.key for run in other.runs} & {run.key for run in named.runs}


def test_folds_that_no_seed_tests_are_said_and_not_read(digits_home: Home) -> None:
    found = prepared(digits_home, "seeds=[0, 3]", "data.digits.folds=5")
    assert list(found.data) == ["digits[folds=5,fold=0]", "digits[folds=5,fold=3]"]
    assert found.remarks == [
        "warning: data.digits: the seeds of P, C cover 2 of 5 folds: a whole cross-validation "
        "needs 5 seeds, such as 0 to 4"
    ]


def test_a_search_chooses_by_images_that_other_folds_test(digits_home: Home) -> None:
    search = '{"space": {"lr": {"choice": [0.01, 0.1]}}, "algorithm": "grid", "then": {"best": 1}}'
    found = prepared(digits_home, f"stages.C.search={search}")
    assert ["search of C chooses by one fold's validation" in line for line in found.remarks] == [
        True
    ]
    (planned,) = found.searches
    assert planned.run_of({"lr": 0.1}).config["dataset"] == "digits[folds=3,fold=0]"


@pytest.mark.parametrize("folds", ["{type: digits, folds: 4}", "{type: digits}"])
def test_no_parent_trains_on_the_fold_that_its_child_tests(digits_home: Home, folds: str) -> None:
    """Each pair of stages is refused once, not once a fold."""
    with pytest.raises(StudyError) as error:
        prepared(digits_home, f"data.all={folds}", "stages.P.config.dataset=all")
    (line,) = error.value.errors
    assert line.startswith("stages.C.after: 'P' trains on ")
    assert "images of 'digits[folds=3,fold=0]'" in line and "in data.all: `drop`" in line


def test_too_few_groups_are_refused_once(home: Home, tmp_path: Path) -> None:
    for number in range(12):
        file = tmp_path / "scans" / "ab"[number % 2] / f"p{number % 4}_{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 9 * number, np.uint8)).save(file)
    split = "{by: group, pattern: '{group}_*'}"
    data = f"{{type: image_folder, path: {tmp_path}/scans, size: 8, folds: 5, split: {split}}}"
    with pytest.raises(StudyError) as error:
        prepared(home, f"data.digits={data}")
    assert error.value.errors == ["data.digits: 5 folds of 4 groups: set folds to 4 or less"]


def test_images_of_folds_are_decoded_and_stored_once(home: Home) -> None:
    found = prepared(home)
    shown: list[str] = []
    folders = build_caches(found, home, lambda name, done, total: shown.append(name))
    assert set(shown) == {"digits[folds=3,fold=0]"}
    tables = [open_table(folders[item.fingerprint]) for item in found.data.values()]
    files = {(folder / "images.npy").stat().st_ino for folder in folders.values()}
    assert len(files) == 1
    tested = np.concatenate([table.parts["test"] for table in tables])
    assert sorted(tested) == list(range(1797))
    for table in tables:
        assert not set(table.parts["train"]) & {*table.parts["val"], *table.parts["test"]}
    assert build_caches(found, home, print) == folders


def test_folds_with_a_limit_have_images_of_their_own(home: Home) -> None:
    found = prepared(home, "data.digits.limit=150")
    folders = build_caches(found, home, lambda name, done, total: None)
    for item in found.data.values():
        table = open_table(folders[item.fingerprint])
        assert table.names == tuple(item.source.names)
        for index in (0, len(table.names) - 1):
            pixels = np.asarray(item.source.decode(index)).transpose(2, 0, 1)
            assert np.array_equal(table.images[index], pixels)


def test_a_line_on_all_folds_is_said_once() -> None:
    lines = {"x[folds=2,fold=0]": ["all", "first"], "x[folds=2,fold=1]": ["all"], "y": ["other"]}
    assert by_written_name(lines) == {"x": ["all", "fold 0: first"], "y": ["other"]}
