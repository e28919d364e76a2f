"""Each seed has a fold or a split of its own, the one that its parent has."""

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
from orchestrator.storage.home import Home
from orchestrator.study_data.seed_cuts import by_written_name, cut_of, ratios_of_test
from tests.conftest import SMALL
from trainables.data.datasets import DatasetConfig, read
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
        fold = cut_of(run.config["dataset"])
        assert fold and (fold.data, fold.folds, fold.number) == ("digits", 3, run.seed)
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


VARIED: dict[str, Any] = {
    **STUDY,
    "data": {"digits": {"type": "digits"}},
    "seeds": {"values": [0, 1, 2], "vary": ["init", "order", "split"]},
}


def of_splits(home: Home, *settings: str) -> Prepared:
    mapping = copy.deepcopy(VARIED)
    for setting in settings:
        apply_setting(mapping, setting)
    return prepare(from_mapping(mapping), None, home)


def test_a_seed_has_the_split_of_its_split_seed_and_so_has_its_parent(digits_home: Home) -> None:
    """Seed 2 has the parts of `split_seed: 2`; of a set with `split_seed: 5` those of 7."""
    found = of_splits(digits_home)
    assert list(found.data) == [f"digits[split={seed}]" for seed in range(3)]
    for start, seed in ((0, 2), (5, 2)):
        varied = of_splits(digits_home, f"data.digits.split_seed={start}")
        cut = read(DatasetConfig(type="digits", split_seed=start + seed), None).parts
        parts = varied.data[f"digits[split={seed}]"].source.parts
        assert all(np.array_equal(parts[part], cut[part]) for part in ("train", "val", "test"))
    assert len({run.key for run in found.runs}) == len(found.runs) == 6
    runs = {run.key: run for run in found.runs}
    for child in (run for run in found.runs if run.parent):
        parent = runs[str(child.parent)]
        assert (
            child.dataset == parent.dataset == found.data[f"digits[split={child.seed}]"].fingerprint
        )
    tests = [item.source.parts["test"] for item in found.data.values()]
    assert len(set.intersection(*map(set, tests))) < len(tests[0]) / 5
    assert found.notes == ("digits: seed s cuts its images with split_seed + s, the test too",)
    assert ratios_of_test(found.data) == {"digits": pytest.approx(0.25, abs=0.005)}


def test_seed_0_of_any_vary_is_the_run_of_a_study_without(digits_home: Home) -> None:
    plain = of_splits(digits_home, "seeds=[0, 1]").runs
    varied = of_splits(digits_home, "seeds.values=[0, 1]").runs
    alone = of_splits(digits_home, "seeds={values: [0, 1], vary: [split]}").runs
    for one, other, third in zip(plain, varied, alone, strict=True):
        assert len({one.key, other.key, third.key}) == (1 if one.seed == 0 else 3)
        assert one.dataset != other.dataset or one.seed == 0
    order = of_splits(digits_home, "seeds={values: [1], vary: [split, order, init]}")
    assert [run.key for run in order.runs] == [run.key for run in varied if run.seed == 1]


def folders(place: Path, parts: dict[str, int]) -> str:
    """Write black images of two classes, so many of each in each part. Returns the data set."""
    for part, count in parts.items():
        for number in range(2 * count):
            file = place / part / "ab"[number % 2] / f"{part}{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            level = len(part) * 40 + number
            Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file)
    return f"{{type: image_folder, path: {place}, size: 8}}"


def test_a_test_of_its_own_is_the_same_for_all_seeds(home: Home, tmp_path: Path) -> None:
    found = of_splits(home, f"data.digits={folders(tmp_path / 'x', {'train': 15, 'test': 4})}")
    parts = [item.source.parts for item in found.data.values()]
    names = [item.source.names for item in found.data.values()]
    tests = [{n[k] for k in p["test"]} for n, p in zip(names, parts, strict=True)]
    assert tests[0] == tests[1] == tests[2] and len(tests[0]) == 8
    validated = {frozenset(n[k] for k in p["val"]) for n, p in zip(names, parts, strict=True)}
    assert len(validated) == 3
    assert ratios_of_test(found.data) == {"digits": 0.0}
    assert found.notes == (
        "digits: seed s cuts its images with split_seed + s, into train and val; the test is the "
        "data set's own, the same for all seeds",
    )


def test_a_set_that_no_seed_can_cut_is_refused(home: Home, tmp_path: Path) -> None:
    data = folders(tmp_path / "x", {"train": 5, "val": 2, "test": 4})
    with pytest.raises(StudyError) as error:
        of_splits(home, f"data.digits={data}")
    (line,) = error.value.errors
    assert line == (
        "data.digits: the data set has train, val and test of its own, so no seed can cut it anew: "
        "remove `split` from seeds.vary, or put all its images together"
    )
    assert of_splits(home, f"data.digits={data}", "seeds=[0, 1]").runs


@pytest.mark.parametrize("folds", ["{type: digits, folds: 3}", "{type: digits, folds: 3, fold: 1}"])
def test_folds_and_splits_by_seed_exclude_each_other(folds: str) -> None:
    mapping = copy.deepcopy(VARIED)
    apply_setting(mapping, f"data.digits={folds}")
    with pytest.raises(StudyError, match=r"data.digits.folds: folds are the same for all seeds"):
        from_mapping(mapping)


def test_only_data_that_is_learned_from_is_cut_by_seed(digits_home: Home) -> None:
    found = of_splits(digits_home, "data.other=digits", "seeds.values=[3]")
    assert list(found.data) == ["digits[split=3]", "other"]


def test_a_search_chooses_by_images_that_other_splits_test(digits_home: Home) -> None:
    search = '{"space": {"lr": {"choice": [0.01, 0.1]}}, "algorithm": "grid", "then": {"best": 1}}'
    found = of_splits(digits_home, f"stages.C.search={search}")
    assert ["search of C chooses by one split's validation" in line for line in found.remarks] == [
        True
    ]
    (planned,) = found.searches
    assert planned.run_of({"lr": 0.1}).config["dataset"] == "digits[split=0]"


def test_a_parent_on_other_cuts_of_the_same_images_is_refused(digits_home: Home) -> None:
    """Each pair of stages is refused once, not once a seed."""
    with pytest.raises(StudyError) as error:
        of_splits(
            digits_home, "data.all={type: digits, split_seed: 1}", "stages.P.config.dataset=all"
        )
    (line,) = error.value.errors
    assert line.startswith("stages.C.after: 'P' trains on ")


def test_images_of_splits_are_decoded_and_stored_once(home: Home) -> None:
    found = of_splits(home)
    shown: list[str] = []
    caches = build_caches(found, home, lambda name, done, total: shown.append(name))
    assert set(shown) == {"digits[split=0]"}
    assert len({(folder / "images.npy").stat().st_ino for folder in caches.values()}) == 1
