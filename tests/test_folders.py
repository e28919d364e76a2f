"""Layouts of image folders, and one clear line for each one that is none."""

from pathlib import Path

import pytest

from trainables.folders import DataError, few, list_images


def make(folder: Path, *names: str) -> Path:
    """Empty files: nothing is opened here. A name that ends in / is an empty folder."""
    folder.mkdir(exist_ok=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    return folder


def test_classes_and_names_are_sorted_and_relative(tmp_path: Path) -> None:
    make(tmp_path, "dog/2.jpg", "dog/10.jpg", "cat/a.png")
    found = list_images(tmp_path)
    assert found == {"train": {"cat": ["cat/a.png"], "dog": ["dog/10.jpg", "dog/2.jpg"]}}
    assert list(found["train"]) == ["cat", "dog"]


def test_extensions_count_in_any_case_and_everything_else_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a/1.JPG", "a/2.Tiff", "a/notes.txt", "a/.hidden.jpg", "a/jpg", "b/1.webp")
    make(tmp_path, ".cache/x.jpg", "README.md")
    assert list_images(tmp_path)["train"] == {"a": ["a/1.JPG", "a/2.Tiff"], "b": ["b/1.webp"]}


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("Training", "VALID", "testing"), ("train", "validation", "Test")],
)
def test_split_folders_are_known_under_their_usual_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        make(tmp_path, f"{name}/a/1.jpg", f"{name}/b/1.jpg")
    found = list_images(tmp_path)
    assert list(found) == ["train", "val", "test"]
    assert [found[part]["a"] for part in found] == [[f"{name}/a/1.jpg"] for name in names]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    assert list(list_images(tmp_path)["train"]) == ["bus", "car", "train"]


def test_a_train_folder_alone_is_read(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    assert list_images(tmp_path) == {"train": {"a": ["train/a/1.jpg"], "b": ["train/b/1.jpg"]}}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "{} holds no images: give one folder for each class"),
        (("README.md",), "{} holds no images: give one folder for each class"),
        (("1.jpg",), "{} holds images but no class folders: give one folder for each class"),
        (
            ("train/1.jpg", "test/2.jpg"),
            "{}/train holds images but no class folders: give one folder for each class",
        ),
        (
            ("train/a/1.jpg", "test/"),
            "{}/test holds no images: give one folder for each class",
        ),
        (
            ("a/1.jpg", "b/notes.txt"),
            "class folder {}/b holds no images: images must lie directly in it (jpg, jpeg, png, "
            "bmp, webp, gif, tif, tiff), and `path:` must name the folder of the classes",
        ),
        (
            ("Art/bed/1.jpg", "Art/bike/1.jpg", "Product/bed/1.jpg"),
            "class folder {}/Art holds folders (bed, bike): images must lie directly in it (jpg, "
            "jpeg, png, bmp, webp, gif, tif, tiff), and `path:` must name the folder of the "
            "classes",
        ),
        (
            ("train/a/1.jpg", "Train/a/1.jpg"),
            "{} has two folders for one split (Train, train): keep one",
        ),
        (
            ("val/a/1.jpg", "test/a/1.jpg"),
            "{} has test, val but no train folder: rename or add it",
        ),
        (
            ("train/a/1.jpg", "tets/a/1.jpg"),
            "{} has tets, train but no val or test folder: rename or add it",
        ),
        (
            ("train/a/1.jpg", "train/zebra/1.jpg", "test/a/1.jpg", "test/lion/1.jpg"),
            "splits of {} have different classes: 'lion' only in test, 'zebra' only in train: "
            "make them the same",
        ),
    ],
)
def test_every_other_layout_is_one_line_that_says_what_to_do(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    make(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        list_images(tmp_path)
    assert str(caught.value) == message.format(tmp_path)


def test_few_counts_what_it_leaves_out() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a", "b", "c"], most=2) == "a, b and 1 more"
