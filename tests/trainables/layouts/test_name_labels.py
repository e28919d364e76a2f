"""Classes in file names: where they stand is said by a pattern, and what does not fit is named."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.trainables.layouts.test_class_folders import make, numbered, sizes
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.layouts.folders import Scan
from trainables.layouts.name_labels import list_by_name


@pytest.mark.parametrize(
    ("pattern", "names", "classes"),
    [
        ("{label}_*", ("10_1.png", "9_2.png", "sub/9_3.png"), ["9", "10"]),
        ("{label}.*", ("cat.0.jpg", "dog.0.jpg"), ["cat", "dog"]),
        ("{label}_{number}", ("old_cat_12.jpg", "dog_3.jpg"), ["dog", "old_cat"]),
        ("IMG-*-{label}", ("IMG-1-x.jpg", "IMG-a-b-y.jpg"), ["x", "y"]),
        ("?{label}", ("aX.jpg", "bY.jpg"), ["X", "Y"]),
        ("{label} ({number})", ("a+b (1).jpg", "c (12).jpg"), ["a+b", "c"]),
    ],
)
def test_the_class_is_a_part_of_the_name(
    tmp_path: Path, pattern: str, names: tuple[str, ...], classes: list[str]
) -> None:
    found = list_by_name(Scan(make(tmp_path, *names)), pattern)
    assert list(found["train"]) == classes
    assert sorted(name for images in found["train"].values() for name in images) == sorted(names)


def test_names_that_do_not_fit_are_said(tmp_path: Path) -> None:
    make(tmp_path, "0_1.png", "cover.png", "1_1.png")
    with pytest.raises(DataError) as caught:
        list_by_name(Scan(tmp_path), "{label}_*")
    assert str(caught.value) == (
        f"{tmp_path} has 1 name that does not fit '{{label}}_*' (cover.png): correct "
        "`name_pattern`, or move it away"
    )


def source_of(path: Path, **settings: Any) -> Any:
    return read(DatasetConfig(type="image_folder", path=str(path), **settings), None)


def test_flat_splits_are_read_with_their_labels(tmp_path: Path) -> None:
    for label in "01":
        make(tmp_path, *(f"train_50/{label}_{i}.png" for i in range(10)))
        make(tmp_path, *(f"val_50/{label}_{i}.png" for i in range(3)))
    source = source_of(tmp_path, labels="from_name")
    assert (source.classes, sizes(source)) == (("0", "1"), [18, 2, 6])
    index = source.names.index("val_50/1_2.png")
    assert source.labels[index] == 1 and index in source.parts["test"]


@pytest.mark.parametrize(
    "settings",
    [
        {"name_pattern": "*"},
        {"name_pattern": "{label}{label}"},
        {"type": "csv"},
        {"labels": "name"},
    ],
)
def test_patterns_and_types_that_do_not_fit_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig(**{"type": "image_folder", "labels": "from_name"} | settings)


def test_numbers_alone_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, *numbered(".", 3))
    with pytest.raises(DataError, match="3 names that do not fit"):
        source_of(tmp_path, labels="from_name")
