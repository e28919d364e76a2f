"""Layouts of image folders, and one clear line for each one that is none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.layouts.class_folders import (
    list_domains,
    list_images,
    list_unlabelled,
)
from trainables.layouts.folders import Scan

NO_LABELS = "or set `labels: false` to learn without labels"


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
    found = list_images(Scan(tmp_path))
    assert found == {"train": {"cat": ["cat/a.png"], "dog": ["dog/10.jpg", "dog/2.jpg"]}}
    assert list(found["train"]) == ["cat", "dog"]


def test_extensions_count_in_any_case_and_everything_else_is_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a/1.JPG", "a/2.Tiff", "a/notes.txt", "a/.hidden.jpg", "a/jpg", "b/1.webp")
    make(tmp_path, ".cache/x.jpg", "README.md")
    assert list_images(Scan(tmp_path))["train"] == {"a": ["a/1.JPG", "a/2.Tiff"], "b": ["b/1.webp"]}


@pytest.mark.parametrize(
    "names",
    [("train", "val", "test"), ("Training", "VALID", "testing"), ("train", "validation", "Test")],
)
def test_split_folders_are_known_under_their_usual_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        make(tmp_path, f"{name}/a/1.jpg", f"{name}/b/1.jpg")
    found = list_images(Scan(tmp_path))
    assert list(found) == ["train", "val", "test"]
    assert [found[part]["a"] for part in found] == [[f"{name}/a/1.jpg"] for name in names]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    assert list(list_images(Scan(tmp_path))["train"]) == ["bus", "car", "train"]


def test_a_train_folder_alone_is_read(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    assert list_images(Scan(tmp_path)) == {
        "train": {"a": ["train/a/1.jpg"], "b": ["train/b/1.jpg"]}
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "{} holds no images: give one folder for each class"),
        (
            ("README.md", "1.heic", "2.HEIC"),
            "{} holds no images but 2 .heic (images of a kind that is not read: convert them to "
            "PNG); 1 .md (not an image): give one folder for each class",
        ),
        (
            ("1.jpg",),
            "{} holds images but no class folders: give one folder for each class, a CSV file "
            "(`type: csv`), `labels: from_name` if names tell it (1.jpg), " + NO_LABELS,
        ),
        (
            ("train/1.jpg", "test/2.jpg"),
            "{}/train holds images but no class folders: give one folder for each class, a CSV "
            "file (`type: csv`), `labels: from_name` if names tell it (1.jpg), " + NO_LABELS,
        ),
        (
            ("train/a/1.jpg", "test/"),
            "{}/test holds no images: give one folder for each class",
        ),
        (
            ("a/1.jpg", "b/notes.txt"),
            "class folder {}/b holds no images but 1 .txt (not an image): images must lie directly "
            "in it, and `path:` must name the folder of the classes",
        ),
        (
            ("Art/bed/1.jpg", "Art/bike/1.jpg", "Product/bed/1.jpg"),
            "class folder {}/Art holds folders (bed, bike): images must lie directly in it, and "
            "`path:` must name the folder of the classes, perhaps {}/Art",
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
        list_images(Scan(tmp_path))
    assert str(caught.value) == message.replace("{}", str(tmp_path))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("b.jpg", "a.PNG", "notes.txt", ".x.jpg"), {"train": ["a.PNG", "b.jpg"]}),
        (("a/1.jpg", "a/b/c/2.jpg", "3.jpg"), {"train": ["3.jpg", "a/1.jpg", "a/b/c/2.jpg"]}),
        (("bus/1.jpg", "train/1.jpg"), {"train": ["bus/1.jpg", "train/1.jpg"]}),
        (("train/x/1.jpg", "more/1.jpg"), {"train": ["more/1.jpg", "train/x/1.jpg"]}),
        (
            ("Test/2.jpg", "train/a/1.jpg", "train/3.jpg", "README.md"),
            {"train": ["train/3.jpg", "train/a/1.jpg"], "test": ["Test/2.jpg"]},
        ),
    ],
)
def test_without_labels_images_may_lie_at_any_depth(
    tmp_path: Path, names: tuple[str, ...], found: dict[str, list[str]]
) -> None:
    make(tmp_path, *names)
    assert list_unlabelled(Scan(tmp_path)) == {part: {"": found[part]} for part in found}


def test_without_labels_a_circle_of_links_ends_and_no_image_counts_twice(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "b")
    assert list_unlabelled(Scan(tmp_path))["train"][""] == ["a/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("a/", "notes.txt"),
            "{} holds no images but 1 .txt (not an image): add some",
        ),
        (
            ("train/1.jpg", "val/"),
            "{}/val holds no images: add some",
        ),
        (
            ("train/1.jpg", "test/1.jpg", "unlabeled/1.jpg", "2.jpg"),
            "{} has unlabeled, 2.jpg beside its split folders (test, train): "
            "move them into one of these, or away",
        ),
        (("test/1.jpg",), "{} has test but no train folder: rename or add it"),
    ],
)
def test_without_labels_no_image_is_lost_in_silence(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    make(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        list_unlabelled(Scan(tmp_path))
    assert str(caught.value) == message.replace("{}", str(tmp_path))


@pytest.mark.parametrize("real", ["Real World", "RealWorld", "Real_World"])
def test_a_class_is_made_of_all_its_domains(tmp_path: Path, real: str) -> None:
    for domain in ("Product", real, "Art"):
        make(tmp_path, f"{domain}/Mug/1.jpg", f"{domain}/Bed/1.jpg")
    make(tmp_path, "Sketch/Mug/1.jpg", "ImageInfo.csv")
    found = list_domains(Scan(tmp_path), None)["train"]
    assert list(found) == ["Bed", "Mug"]
    assert found["Mug"] == ["Art/Mug/1.jpg", "Product/Mug/1.jpg", f"{real}/Mug/1.jpg"]
    some = list_domains(Scan(tmp_path), ["Real World", "art", "Art"])["train"]
    assert some["Bed"] == ["Art/Bed/1.jpg", f"{real}/Bed/1.jpg"]


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (
            ("a/1.jpg", "b/1.jpg"),
            None,
            "{} holds none of Office-Home's domains (Art, Clipart, Product, Real World) and no "
            "train.csv: correct the folder, or use `type: image_folder`",
        ),
        (
            ("Art/a/1.jpg", "Clipart/a/1.jpg"),
            ["Clip"],
            "{} has no domain 'Clip' (did you mean 'Clipart'? there are: Art, Clipart)",
        ),
        (
            ("Art/a/1.jpg", "Clipart/a/1.jpg"),
            ["Product"],
            "{} has no domain 'Product' (there are: Art, Clipart)",
        ),
        (
            ("Real World/a/1.jpg", "RealWorld/a/1.jpg"),
            None,
            "{} has two folders for one domain (Real World, RealWorld): keep one",
        ),
        (
            ("Art/a/1.jpg", "Art/b/1.jpg", "Clipart/a/1.jpg", "Product/b/1.jpg", "Product/c/1.jpg"),
            None,
            "domains of {} have different classes: Art lacks 'c'; Clipart lacks 'b', 'c'; Product "
            "lacks 'a': make them the same, or choose others with `domains:`",
        ),
        (
            ("Art/1.jpg",),
            None,
            "{}/Art holds images but no class folders: give one folder for each class, a CSV "
            "file (`type: csv`), `labels: from_name` if names tell it (1.jpg), " + NO_LABELS,
        ),
    ],
)
def test_domains_that_do_not_fit_are_refused(
    tmp_path: Path, names: tuple[str, ...], wanted: list[str] | None, message: str
) -> None:
    make(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        list_domains(Scan(tmp_path), wanted)
    assert str(caught.value) == message.replace("{}", str(tmp_path))


def source_of(kind: str, path: Path, **settings: Any) -> Source:
    return read(DatasetConfig(type=kind, path=str(path), **settings), None)


def sizes(source: Source) -> list[int]:
    """Images in train, val and test, which share none and leave none out."""
    parts = [source.parts[part] for part in ("train", "val", "test")]
    assert sorted(np.concatenate(parts)) == list(range(len(source.names)))
    return [len(indices) for indices in parts]


def numbered(folder: str, count: int) -> list[str]:
    return [f"{folder}/{i}.jpg" for i in range(count)]


@pytest.mark.parametrize("kind", ["image_folder", "mini_imagenet"])
def test_without_labels_a_flat_folder_is_cut_as_one_class(tmp_path: Path, kind: str) -> None:
    make(tmp_path, *numbered(".", 50))
    source = source_of(kind, tmp_path, labels=False)
    assert (source.classes, source.labelled) == ((), False)
    assert (source.labels.tolist(), source.labels.dtype) == ([-1] * 50, np.int64)
    assert sizes(source) == [36, 4, 10]
    assert sizes(source_of(kind, tmp_path, labels=False, limit=20)) == [18, 2, 10]
    with pytest.raises(DataError, match=f"{NO_LABELS}$"):
        source_of(kind, tmp_path)


def test_without_labels_the_cut_depends_on_the_split_seed_alone(tmp_path: Path) -> None:
    for place in ("here", "there"):
        make(tmp_path / place, *numbered(".", 50))
    first, same, other = (
        source_of("image_folder", tmp_path / place, labels=False, split_seed=seed)
        for place, seed in (("here", 0), ("there", 0), ("here", 1))
    )
    for part in ("train", "val", "test"):
        assert np.array_equal(first.parts[part], same.parts[part])
        assert not np.array_equal(first.parts[part], other.parts[part])


def test_without_labels_classes_are_forgotten_and_splits_are_kept(tmp_path: Path) -> None:
    make(tmp_path, *numbered("train/a", 9), *numbered("train/b/deeper", 1), *numbered("val/c", 5))
    source = source_of("image_folder", tmp_path, labels=False)
    assert not source.labelled
    assert sizes(source) == [9, 1, 5]
    assert {source.names[i] for i in source.parts["test"]} == set(numbered("val/c", 5))


def test_office_home_takes_all_domains_or_those_named(tmp_path: Path) -> None:
    for domain in ("Art", "Clipart", "Real World"):
        make(tmp_path, *numbered(f"{domain}/Bed", 5), *numbered(f"{domain}/Mug", 5))
    source = source_of("office_home", tmp_path)
    assert source.classes == ("Bed", "Mug")
    assert source.labels[source.names.index("Real World/Mug/4.jpg")] == 1
    assert sizes(source) == [22, 2, 6]
    chosen = source_of("office_home", tmp_path, domains=["RealWorld"])
    assert {name.split("/")[0] for name in chosen.names} == {"Real World"}


def test_office_home_refuses_a_class_with_one_training_image(tmp_path: Path) -> None:
    for domain in ("Art", "Product"):
        make(tmp_path, *numbered(f"{domain}/Bed", 9), *numbered(f"{domain}/Mug", 1))
    with pytest.raises(DataError, match=r"^class 'Mug' has too few training images \(1\): add"):
        source_of("office_home", tmp_path)


def test_mini_imagenet_is_read_from_class_folders(tmp_path: Path) -> None:
    make(tmp_path, *numbered("train/n01", 9), *numbered("train/n02", 9))
    make(tmp_path, *numbered("test/n01", 1), *numbered("test/n02", 2))
    source = source_of("mini_imagenet", tmp_path)
    assert (source.classes, sizes(source)) == (("n01", "n02"), [16, 2, 3])


@pytest.mark.parametrize("inside", ["", "images/"])
def test_domain_folders_of_any_set_are_taken_together(tmp_path: Path, inside: str) -> None:
    for domain in ("photo", "sketch", "cartoon"):
        make(tmp_path, *numbered(f"{domain}/{inside}cat", 5), *numbered(f"{domain}/{inside}dog", 5))
    make(tmp_path, "notes.txt")
    source = source_of("image_folder", tmp_path)
    assert (source.classes, sizes(source)) == (("cat", "dog"), [22, 2, 6])
    assert any("cartoon, photo, sketch" in note for note in source.notes)
    chosen = source_of("image_folder", tmp_path, domains=["Photo", "sketch"])
    assert {name.split("/")[0] for name in chosen.names} == {"photo", "sketch"}
    assert chosen.passed_over["folder 'cartoon'", "no chosen domain"] == 1
    assert len(source_of("image_folder", tmp_path, domains=["photo"], labels=False).names) == 10
    with pytest.raises(DataError, match="has no domain 'fotos' .did you mean 'photo'"):
        source_of("image_folder", tmp_path, domains=["fotos"])


@pytest.mark.parametrize(
    "names",
    [
        ("animals/cat/1.jpg", "vehicles/car/1.jpg"),
        ("a/x/1.jpg", "b/x/1.jpg", "b/y/1.jpg"),
        ("a/x/1.jpg", "b/1.jpg"),
        ("a/x/1.jpg", "a/1.jpg", "b/x/1.jpg"),
        ("a/x/1.jpg",),
    ],
)
def test_other_folders_of_folders_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="class folder .* holds folders"):
        list_images(Scan(make(tmp_path, *names)))


def test_domains_are_no_key_of_other_types(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="domains are for types image_folder and office_home"):
        DatasetConfig(type="csv", domains=["Art"])
