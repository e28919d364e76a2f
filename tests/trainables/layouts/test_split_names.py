"""Folders that are splits by other names are understood or refused; they never become classes."""

from pathlib import Path

import pytest

from tests.trainables.layouts.test_class_folders import make
from trainables.dataset import DataError
from trainables.layouts.class_folders import list_images, list_unlabelled
from trainables.layouts.folders import Scan
from trainables.layouts.split_names import named_as_splits, part_of, split_files


@pytest.mark.parametrize(
    ("name", "part"),
    [
        *((name, "train") for name in ("train", "train_50", "train2017", "images_train", "TRAIN")),
        *((name, "train") for name in ("Training Data", "trainset", "imagesTrain", "train-images")),
        *((name, "train") for name in ("training_set", "seg_train", "x_train", "train (1)")),
        *((name, "val") for name in ("val_50", "val2017", "Validation Set", "valid-images")),
        *((name, "test") for name in ("Test Data", "test_images", "imagestest", "testing_set")),
        *((name, "train") for name in ("trn", "Entrenamiento", "entraînement", "训练集")),
        *((name, "val") for name in ("dev", "dev_set", "eval", "Evaluation", "Validación", "验证")),
        *((name, "test") for name in ("tst", "holdout", "prueba", "测试集")),
        *((name, None) for name in ("device", "medieval", "devil", "develop", "trainval")),
        *((name, None) for name in ("train_station", "test tube", "training shoes", "contest")),
        *((name, None) for name in ("bus", "interval", "testa", "labels", "images", "2017", "")),
        *((name, None) for name in ("train_val", "trains", "retrain", "latest", "testament")),
    ],
)
def test_a_split_is_known_by_its_name(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_names_that_agree_but_for_the_split_are_splits() -> None:
    assert named_as_splits(["chest_train", "chest_test"]) == {
        "chest_train": "train",
        "chest_test": "test",
    }
    assert named_as_splits(["train_station", "test_tube", "bullet train"]) == {}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train_50", "val_50"),
        ("train2017", "val2017"),
        ("images_train", "images_val"),
        ("Training Data", "Validation Data"),
        ("seg_train/seg_train", "seg_val/seg_val"),
        ("flowers_train", "flowers_val"),
        ("trn", "dev"),
        ("entrenamiento", "validación"),
    ],
)
def test_class_folders_lie_in_splits_of_any_name(tmp_path: Path, train: str, val: str) -> None:
    names = [f"{part}/{name}/1.jpg" for part in (train, val) for name in ("cat", "dog")]
    scan = Scan(make(tmp_path, *names, "notes/readme.txt"))
    assert list_images(scan) == {
        "train": {"cat": [f"{train}/cat/1.jpg"], "dog": [f"{train}/dog/1.jpg"]},
        "val": {"cat": [f"{val}/cat/1.jpg"], "dog": [f"{val}/dog/1.jpg"]},
    }
    assert scan.passed == {("folder 'notes'", "beside the splits"): 1}


@pytest.mark.parametrize(("train", "test"), [("train_50", "test_50"), ("images_train", "testset")])
def test_without_labels_splits_have_any_name_too(tmp_path: Path, train: str, test: str) -> None:
    found = list_unlabelled(Scan(make(tmp_path, f"{train}/1.jpg", f"{test}/2.jpg")))
    assert found == {"train": {"": [f"{train}/1.jpg"]}, "test": {"": [f"{test}/2.jpg"]}}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train_50/0_1.png", "val_50/1_1.png"),
         "/train_50 holds images but no class folders: .* `labels: from_name` .*0_1.png"),
        (("train2017/1.jpg", "tets2017/1.jpg"),
         "has train2017, a split by its name, beside tets2017: add a second split, or give it "
         "another name if it is a class"),
        (("trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"),
         r"has two folders for one split \(testA, testB, trainA, trainB\): keep one"),
        (("val_a/x/1.jpg", "test_a/x/1.jpg"), "has test_a, val_a but no train folder"),
    ],
)  # fmt: skip
def test_splits_that_make_no_set_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list_images(Scan(make(tmp_path, *names)))


def test_classes_that_sound_like_splits_stay_classes(tmp_path: Path) -> None:
    make(tmp_path, "bullet train/1.jpg", "test_tube/1.jpg", "training shoes/1.jpg")
    assert list(list_images(Scan(tmp_path))["train"]) == [
        "bullet train", "test_tube", "training shoes",
    ]  # fmt: skip


def test_a_list_is_known_by_its_name_and_an_exact_name_counts_first(tmp_path: Path) -> None:
    names = ["test_list.csv", "train.csv", "train_old.csv", "labels.csv"]
    assert split_files(tmp_path, names) == {"train": "train.csv", "test": "test_list.csv"}
