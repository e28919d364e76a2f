"""Parts that are cut by groups or folds have the properties of scikit-learn's splitters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.data.folds import grouped_folds, groups_by_pattern, stratified_folds
from trainables.dataset import DataError

PARTS = ("train", "val", "test")


def by_fold(labels: np.ndarray, folds: np.ndarray, count: int) -> np.ndarray:
    """Images of each class in each fold, (folds, classes)."""
    return np.array(
        [np.bincount(labels[folds == k], minlength=labels.max() + 1) for k in range(count)]
    )


@pytest.mark.parametrize(("images", "classes", "count"), [(100, 3, 5), (37, 4, 4), (12, 2, 10)])
def test_stratified_folds_differ_by_one_image_of_a_class_and_in_all(
    images: int, classes: int, count: int
) -> None:
    labels = np.random.default_rng(images).integers(0, classes, images)
    table = by_fold(labels, stratified_folds(labels, count, ("test", 0)), count)
    assert np.ptp(table, axis=0).max() <= 1  # scikit-learn's StratifiedKFold promises the same
    assert np.ptp(table.sum(1)) <= 1
    assert table.sum() == images


@pytest.mark.parametrize(("images", "groups", "classes"), [(300, 40, 3), (1000, 150, 10)])
def test_grouped_folds_are_disjoint_and_as_even_as_those_of_scikit_learn(
    images: int, groups: int, classes: int
) -> None:
    chance = np.random.default_rng(groups)
    labels, group = chance.integers(0, classes, images), chance.integers(0, groups, images)
    folds = grouped_folds(labels, group, 5, ("test", 0))
    assert all(len(set(folds[group == name])) == 1 for name in np.unique(group))
    assert set(folds) == set(range(5))
    theirs = np.empty_like(folds)
    splitter = StratifiedGroupKFold(5)
    for number, (_, rows) in enumerate(splitter.split(labels, labels, group)):
        theirs[rows] = number

    def unevenness(dealt: np.ndarray) -> float:
        table = by_fold(labels, dealt, 5)
        return float((table / table.sum(0)).std(0).mean())

    assert unevenness(folds) <= 1.15 * unevenness(theirs)


def test_folds_depend_on_the_seed_alone() -> None:
    labels = np.arange(60) % 3
    assert (stratified_folds(labels, 5, ("t", 0)) == stratified_folds(labels, 5, ("t", 0))).all()
    assert (stratified_folds(labels, 5, ("t", 0)) != stratified_folds(labels, 5, ("t", 1))).any()
    groups = np.arange(60) // 4
    assert (
        grouped_folds(labels, groups, 5, ("t", 0)) != grouped_folds(labels, groups, 5, ("t", 1))
    ).any()


@pytest.mark.parametrize(
    ("pattern", "group"),
    [
        ("{group}_{number}", "p07_left"),
        ("{group}_*", "p07"),
        ("{group}/*", "eye"),
        ("{group}/eye/*", "clinic"),
    ],
)
def test_a_group_is_a_part_of_the_end_of_a_path(pattern: str, group: str) -> None:
    assert groups_by_pattern(["clinic/eye/p07_left_3.png"], pattern) == [group]


def scans(folder: Path, patients: int = 24, images: int = 5) -> Path:
    """Two classes; each patient has images of one of them."""
    for patient in range(patients):
        for number in range(images):
            path = folder / "ab"[patient % 2] / f"p{patient:02d}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (patient, number, 9)).save(path)
    return folder


def parts_of(folder: Path, **settings: Any) -> tuple[Source, dict[str, set[str]]]:
    source = read(DatasetConfig(type="image_folder", path=str(folder), size=4, **settings), None)
    return source, {p: {source.names[row] for row in source.parts[p]} for p in PARTS}


def patients(names: set[str]) -> set[str]:
    return {Path(name).stem.partition("_")[0] for name in names}


SPLIT = {"by": "group", "pattern": "{group}_{number}"}


def test_a_group_is_in_one_part_and_all_images_are_in_some(tmp_path: Path) -> None:
    source, parts = parts_of(scans(tmp_path / "set"), split=SPLIT)
    held = [patients(parts[part]) for part in PARTS]
    assert sum(map(len, held)) == len(set.union(*held)) == 24
    assert sum(map(len, parts.values())) == 120
    assert 20 <= len(parts["test"]) <= 30 and 5 <= len(parts["val"]) <= 15  # about 24 and 10
    groups = f"groups: {len(held[0])} in train, {len(held[1])} in val, {len(held[2])} in test"
    assert groups in source.notes


@pytest.mark.parametrize("split", [None, SPLIT])
def test_over_the_folds_every_image_is_tested_once(tmp_path: Path, split: Any) -> None:
    folder = scans(tmp_path / "set")
    tested: list[str] = []
    for fold in range(4):
        _, parts = parts_of(folder, folds=4, fold=fold, split=split)
        assert not parts["test"] & (parts["train"] | parts["val"])
        if split:
            assert not patients(parts["test"]) & patients(parts["train"] | parts["val"])
            assert not patients(parts["val"]) & patients(parts["train"])
        tested += parts["test"]
    assert len(tested) == len(set(tested)) == 120


def test_validation_has_images_of_a_class_with_few_groups(tmp_path: Path) -> None:
    """Of 8 patients of class a, one is in a validation of a seventh, none in one of a tenth."""
    for patient in range(30):
        for number in range(4):
            path = tmp_path / "ba"[patient < 8] / f"p{patient:02d}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (4, 4), (patient, number, 9)).save(path)
    for seed in range(10):
        source, parts = parts_of(tmp_path, split=SPLIT, split_seed=seed)
        assert all({name[0] for name in parts[part]} == {"a", "b"} for part in PARTS)
        assert not any("has no image of" in note for note in source.notes)


def test_a_limit_leaves_groups_apart(tmp_path: Path) -> None:
    source, parts = parts_of(scans(tmp_path / "set"), split=SPLIT, limit=40)
    assert (len(parts["train"]), len(parts["val"])) == (36, 4)
    assert not patients(parts["val"]) & patients(parts["train"])
    assert len(source.names) == sum(map(len, parts.values()))


def test_groups_of_a_list_are_a_column(tmp_path: Path) -> None:
    folder = scans(tmp_path / "set")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    lines = [f"{name},{name[0]},visit {Path(name).stem[1:3]}" for name in names]
    (folder / "train.csv").write_text("\n".join(["filename,label,Patient", *lines]))
    split = {"by": "group", "column": "patient"}
    source = read(DatasetConfig(type="csv", path=str(folder), size=4, split=split), None)
    held = [patients({source.names[row] for row in source.parts[part]}) for part in PARTS]
    assert sum(map(len, held)) == len(set.union(*held)) == 24
    assert any(note.startswith("groups: ") for note in source.notes)
    (folder / "train.csv").write_text(
        "\n".join(["filename,label,Patient", *lines[:-1], f"{names[-1]},b,"])
    )
    with pytest.raises(DataError, match=r"1 row without a patient \(line 121\)"):
        read(DatasetConfig(type="csv", path=str(folder), size=4, split=split), None)
    wrong = {"by": "group", "column": "pateint"}
    with pytest.raises(DataError, match="no column 'pateint' for `split` .*did you mean 'Patient'"):
        read(DatasetConfig(type="csv", path=str(folder), size=4, split=wrong), None)


def test_what_cannot_be_cut_is_refused_with_the_cure(tmp_path: Path) -> None:
    folder = scans(tmp_path / "set", patients=4)
    with pytest.raises(DataError, match="5 folds of 4 groups: set folds to 4 or less"):
        parts_of(folder, split=SPLIT, folds=5, fold=0)
    with pytest.raises(DataError, match="no training image is left of class '[ab]'"):
        parts_of(scans(tmp_path / "two", patients=3), split=SPLIT)
    with pytest.raises(DataError, match=r"20 of 20 images do not fit split.pattern '\{group\}-\*'"):
        parts_of(folder, split={"by": "group", "pattern": "{group}-*"})
    own = tmp_path / "own"
    scans(own / "train")
    scans(own / "test", patients=4)
    with pytest.raises(
        DataError, match=r"4 groups are in train and in test .*\(p00, p01, p02.*: put"
    ):
        parts_of(own, split=SPLIT)
    with pytest.raises(DataError, match="has a test part of its own, and `folds` cuts it"):
        parts_of(own, folds=4, fold=0)
    with pytest.raises(DataError, match="4 folds, and none is the test: give `fold`"):
        parts_of(folder, split=SPLIT, folds=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 1}, "fold needs `folds`"),
        ({"folds": 5, "fold": 5}, r"fold 5 must be less than folds \(5\)"),
        ({"split": {"by": "group"}}, "needs `pattern`"),
        ({"split": {"by": "group", "pattern": "*_*"}}, "must have `{group}` once"),
        ({"split": {"by": "group", "column": "patient"}}, "split.column is for types csv"),
        ({"domains": {"train": ["a"]}}, "domains names none to test"),
        ({"domains": {"train": ["a"], "test": ["b"]}, "folds": 2, "fold": 0}, "keep one"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig(type="image_folder", path="x", **settings)


def domains(folder: Path) -> Path:
    number = 0
    for domain in ("Art", "Clipart", "Product", "Real World"):
        for name in "ab":
            for i in range(6):
                number += 1
                path = folder / domain / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), (number, 0, 0)).save(path)
    return folder


@pytest.mark.parametrize("kind", ["office_home", "image_folder"])
def test_some_domains_train_and_others_test(tmp_path: Path, kind: str) -> None:
    wanted = {"test": ["clipart"], "train": ["Art", "Real_World"]}
    config = DatasetConfig(type=kind, path=str(domains(tmp_path)), size=4, domains=wanted)
    if kind == "image_folder":
        config = config.model_copy(
            update={"domains": {"test": ["Clipart"], "train": ["Art", "Real World"]}}
        )
    source = read(config, None)
    held = {p: {source.names[row].split("/")[0] for row in source.parts[p]} for p in PARTS}
    assert held == {
        "train": {"Art", "Real World"},
        "val": {"Art", "Real World"},
        "test": {"Clipart"},
    }
    assert len(source.parts["test"]) == 12
    assert len(source.names) == 36


def test_validation_may_have_a_domain_too_and_none_is_in_two_parts(tmp_path: Path) -> None:
    wanted: dict[Any, list[str]] = {"train": ["Art"], "val": ["Product"], "test": ["Clipart"]}
    folder = str(domains(tmp_path))
    source = read(DatasetConfig(type="office_home", path=folder, size=4, domains=wanted), None)
    assert {source.names[row].split("/")[0] for row in source.parts["val"]} == {"Product"}
    wanted["test"].append("art")
    with pytest.raises(DataError, match="`domains` names Art for two parts: keep one of each"):
        read(DatasetConfig(type="office_home", path=folder, size=4, domains=wanted), None)
    wanted["test"] = ["Clipatr"]
    with pytest.raises(DataError, match="no domain 'Clipatr' .*did you mean 'Clipart'"):
        read(DatasetConfig(type="office_home", path=folder, size=4, domains=wanted), None)
