"""Data sets on disk in every layout: which images, labels and splits they become."""

import os
import pickle
import shutil
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from torchvision.datasets import CIFAR10

from trainables.data import cifar10
from trainables.data.cifar10 import CIFAR10_CLASSES
from trainables.data.contract import Source
from trainables.data.datasets import DATASETS, DatasetConfig, read
from trainables.dataset import DataError


def fill(folder: Path, counts: dict[str, int]) -> Path:
    """`count` images of 4x4 px in each of the class folders."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / name / f"{i:03}.png")
    return folder


def image_folder(path: Path, **settings: Any) -> Source:
    return read(DatasetConfig(type="image_folder", path=str(path), **settings), None)


def names(source: Source, part: str) -> set[str]:
    return {source.names[i] for i in source.parts[part]}


def per_class(source: Source, part: str) -> list[int]:
    labels = source.labels[source.parts[part]]
    return np.bincount(labels, minlength=len(source.classes)).tolist()


def assert_disjoint_and_complete(source: Source) -> None:
    together = np.concatenate([source.parts[part] for part in ("train", "val", "test")])
    assert sorted(together) == list(range(len(source.names)))
    assert len(set(source.names)) == len(source.names) == len(source.labels)


def test_an_unknown_type_is_answered_with_the_nearest_and_with_all() -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig(type="cifr10")
    assert caught.value.errors()[0]["msg"] == (
        "Value error, unknown data set 'cifr10' "
        "(did you mean 'cifar10'? "
        "there are: digits, cifar10, image_folder, csv, office_home, mini_imagenet, "
        "deepglobe, mask_folders, voc, digit_scenes)"
    )
    with pytest.raises(ValidationError, match=r"'zzz' \(there are: digits"):
        DatasetConfig(type="zzz")


@pytest.mark.parametrize(
    "fault",
    [{"size": 3}, {"size": 8193}, {"val_fraction": 0.0}, {"val_fraction": 0.6}]
    + [{"limit": 1}, {"on_corrupt": "ignore"}, {"pth": "x"}, {"size": "64"}, {"labels": 0}],
)
def test_settings_out_of_range_or_unknown_are_refused(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig(type="digits", **fault)


MISFITS = [
    ({"path": "a", "subfolder": "b"}, "path and subfolder are two places: keep one"),
    ({"limits": [9, 9]}, "limits [9.0, 9.0] must be the lower number, then the higher one"),
    *(({"subfolder": name},
       f"subfolder {name!r} must stay below --data DIR: make it relative, without '..'")
      for name in ("../photos", "a/../../b", "/photos", "")),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "message"), MISFITS)
def test_settings_that_do_not_fit_are_refused_in_one_line(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig(type="image_folder", **settings)
    assert [error["msg"] for error in caught.value.errors()] == [f"Value error, {message}"]


def test_the_side_is_the_types_own_unless_the_study_says_otherwise() -> None:
    assert {name: DatasetConfig(type=name).side for name in DATASETS} == {
        "digits": 8,
        "cifar10": 32,
        "image_folder": 64,
        "csv": 64,
        "office_home": 128,
        "mini_imagenet": 128,
        "digit_scenes": 64,
        "deepglobe": 512,
        "mask_folders": 512,
        "voc": 512,
    }
    assert DatasetConfig(type="digits", size=16).side == 16


def test_digits_need_no_folder_and_keep_a_fifth_for_the_test() -> None:
    source = read(DatasetConfig(type="digits"), None)
    assert source.classes == tuple("0123456789")
    assert_disjoint_and_complete(source)
    assert len(source.names) == 1797
    assert abs(len(source.parts["test"]) - 359) <= 5
    assert min(per_class(source, "test")) >= 34
    image = source.decode(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))
    assert np.asarray(image).max() > 200


def test_class_folders_alone_are_cut_into_train_val_and_test(tmp_path: Path) -> None:
    source = image_folder(fill(tmp_path, {"b": 20, "a": 40}), val_fraction=0.25)
    assert source.classes == ("a", "b")
    assert_disjoint_and_complete(source)
    assert per_class(source, "test") == [8, 4]
    assert per_class(source, "val") == [8, 4]
    assert source.labels[source.names.index("b/007.png")] == 1


def test_with_train_and_test_validation_is_cut_from_train(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 10, "train/b": 10, "test/a": 3, "test/b": 4})
    source = image_folder(tmp_path)
    assert_disjoint_and_complete(source)
    assert per_class(source, "test") == [3, 4]
    assert per_class(source, "val") == [1, 1]
    assert all(name.startswith("train/") for name in names(source, "val"))


def test_with_train_and_val_alone_val_is_the_test_set(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 3, "val/b": 4})
    source = image_folder(tmp_path)
    assert_disjoint_and_complete(source)
    assert names(source, "test") == {name for name in source.names if name.startswith("val/")}
    assert all(name.startswith("train/") for name in names(source, "val"))


def test_with_all_three_splits_each_is_what_it_says(tmp_path: Path) -> None:
    fill(tmp_path, {f"{part}/{c}": 3 for part in ("train", "val", "test") for c in "ab"})
    source = image_folder(tmp_path)
    assert_disjoint_and_complete(source)
    for part in ("train", "val", "test"):
        assert names(source, part) == {n for n in source.names if n.startswith(f"{part}/")}


def test_the_cut_depends_on_the_split_seed_alone(tmp_path: Path) -> None:
    fill(tmp_path / "here", {"a": 30, "b": 30})
    fill(tmp_path / "there", {"a": 30, "b": 30})
    first, moved = image_folder(tmp_path / "here"), image_folder(tmp_path / "there")
    other = image_folder(tmp_path / "here", split_seed=1)
    for part in ("train", "val", "test"):
        assert names(first, part) == names(moved, part)
        assert names(first, part) != names(other, part)


def test_each_class_validates_with_one_image_at_least(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 2, "train/b": 50, "test/a": 1, "test/b": 1})
    source = image_folder(tmp_path, val_fraction=0.02)
    assert (per_class(source, "train"), per_class(source, "val")) == ([1, 49], [1, 1])


def test_limit_keeps_a_stratified_part_of_train_and_all_of_test(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a": 40, "train/b": 20, "test/a": 7, "test/b": 5})
    source = image_folder(tmp_path, limit=30, val_fraction=0.2)
    assert_disjoint_and_complete(source)
    assert per_class(source, "test") == [7, 5]
    assert (per_class(source, "train"), per_class(source, "val")) == ([16, 8], [4, 2])
    for index in (0, len(source.names) - 1):  # names, files and pixels are still of one image
        name = source.names[index]
        assert str(source.files[index]).endswith(name)
        assert source.decode(index).getpixel((0, 0)) == (int(name[-7:-4]), 0, 0)


def test_a_limit_above_the_size_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 10, "b": 10})
    assert image_folder(tmp_path, limit=1000).names == image_folder(tmp_path).names


def test_limit_leaves_a_given_validation_set_alone(tmp_path: Path) -> None:
    fill(tmp_path, {f"{part}/{c}": 9 for part in ("train", "val", "test") for c in "ab"})
    source = image_folder(tmp_path, limit=4)
    assert [len(source.parts[part]) for part in ("train", "val", "test")] == [4, 18, 18]


@pytest.mark.parametrize(
    ("counts", "settings", "message"),
    [
        (
            {"cat": 9},
            {},
            "data set has one class only ('cat'): give one folder, or one label in CSV, "
            "for each class",
        ),
        (
            {"a": 9, "b": 2},
            {},
            "class 'b' has too few training images (1): add some (2 at least) or remove the class",
        ),
        (
            {"a": 1, "b": 1},
            {"labels": False},
            "data set has too few training images (1): add some (2 at least)",
        ),
        (
            {"a": 9, "b": 9},
            {"limit": 3},
            "limit 3 is too small for 2 classes with 2 training images each: set it to 4 or more",
        ),
        (
            {"train/a": 2, "train/b": 2, "test/a": 1},
            {},
            "splits of {} have different classes: 'b' only in train: make them the same",
        ),
    ],
)
def test_a_data_set_that_cannot_be_split_is_refused(
    tmp_path: Path, counts: dict[str, int], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        image_folder(fill(tmp_path, counts), **settings)
    assert str(caught.value) == message.format(tmp_path)


def test_without_path_the_folder_is_looked_for_under_data(tmp_path: Path) -> None:
    config = DatasetConfig(type="image_folder")
    fill(tmp_path, {"a": 4, "b": 4})
    assert read(config, tmp_path).classes == ("a", "b")
    fill(tmp_path / "image_folder", {"c": 4, "d": 4})
    assert read(config, tmp_path).classes == ("c", "d")


def test_two_sets_lie_in_subfolders_of_one_data_folder(tmp_path: Path) -> None:
    fill(tmp_path / "objects/pretrain", {"a": 4, "b": 4})
    fill(tmp_path / "objects/target", {"c": 4, "d": 4})
    pretrain, target = (
        DatasetConfig(type="image_folder", subfolder=f"objects/{name}")
        for name in ("pretrain", "target")
    )
    assert read(pretrain, tmp_path).classes == ("a", "b")
    assert read(target, tmp_path).classes == ("c", "d")
    with pytest.raises(DataError) as caught:
        read(pretrain, None)
    assert str(caught.value) == "subfolder 'objects/pretrain' lies below --data: give --data DIR"


def test_a_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(DataError) as caught:
        read(DatasetConfig(type="image_folder"), None)
    assert str(caught.value) == (
        "image_folder needs a folder: give --data DIR, or `path:` in the study"
    )
    given = DatasetConfig(type="image_folder", path=str(gone))
    for config, root in ((DatasetConfig(type="image_folder"), gone), (given, tmp_path)):
        with pytest.raises(DataError) as caught:
            read(config, root)
        assert str(caught.value) == f"{gone}: no such folder: correct `path:` or --data"


@pytest.mark.parametrize("settings", [{"type": "digits", "limit": 40}, {"type": "office_home"}])
def test_every_type_can_do_without_labels(tmp_path: Path, settings: dict[str, Any]) -> None:
    fill(tmp_path, {"Art/a": 9, "Art/b": 9})
    without = read(DatasetConfig(**settings, labels=False), tmp_path)
    assert read(DatasetConfig(**settings), tmp_path).labelled and not without.labelled
    assert set(without.labels.tolist()) == {-1}


def test_cifar10_in_class_folders_is_found_under_data_and_as_data(tmp_path: Path) -> None:
    fill(tmp_path / "cifar10", {f"{p}/{c}": 3 for p in ("train", "test") for c in CIFAR10_CLASSES})
    config = DatasetConfig(type="cifar10")
    source = read(config, tmp_path)
    assert source.classes == CIFAR10_CLASSES
    assert names(source, "test") == names(read(config, tmp_path / "cifar10"), "test")


def test_other_classes_are_not_cifar10(tmp_path: Path) -> None:
    fill(tmp_path, {"airplane": 5, "zeppelin": 5})
    with pytest.raises(DataError, match="has not CIFAR-10's classes: use `type: image_folder`"):
        read(DatasetConfig(type="cifar10"), tmp_path)


def test_missing_cifar10_says_that_it_can_be_downloaded(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    with pytest.raises(DataError) as caught:
        read(DatasetConfig(type="cifar10"), tmp_path)
    assert str(caught.value) == (
        f"no CIFAR-10 in {tmp_path}: put cifar-10-batches-py or class folders there, "
        "or set `download: true`"
    )


def write_official(folder: Path) -> dict[str, str]:
    """CIFAR-10's own files with 20 images each. Returns file name → md5."""
    base = folder / "cifar-10-batches-py"
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        entry = {"data": data, "labels": [i % 10 for i in range(20)]}
        (base / name).write_bytes(pickle.dumps(entry))
    meta = {"label_names": list(CIFAR10_CLASSES)}
    (base / "batches.meta").write_bytes(pickle.dumps(meta))
    return {file.name: md5(file.read_bytes()).hexdigest() for file in base.iterdir()}


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small official files that torchvision's checksums accept."""
    sums = write_official(tmp_path)
    train = [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)]
    monkeypatch.setattr(cifar10, "CHECKSUMS", {name: sums[name] for name in cifar10.CHECKSUMS})
    monkeypatch.setattr(CIFAR10, "train_list", train)  # which downloads them
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    return tmp_path


@pytest.mark.parametrize("inside", [False, True])
def test_the_official_cifar10_files_are_read(official: Path, inside: bool) -> None:
    path = official / "cifar-10-batches-py" if inside else official
    source = read(DatasetConfig(type="cifar10", path=str(path), val_fraction=0.2), None)
    assert source.classes == CIFAR10_CLASSES
    assert_disjoint_and_complete(source)
    assert [len(source.parts[part]) for part in ("train", "val", "test")] == [80, 20, 20]
    batch = pickle.loads((official / "cifar-10-batches-py/data_batch_2").read_bytes())
    pixels = np.asarray(source.decode(23)).transpose(2, 0, 1).reshape(-1)
    assert np.array_equal(pixels, batch["data"][3]) and source.labels[23] == 3


def test_an_official_file_with_a_wrong_checksum_is_refused(official: Path) -> None:
    with (official / "cifar-10-batches-py/data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"fails its checksum: set `download: true`$"):
        read(DatasetConfig(type="cifar10"), official)


def test_download_unpacks_an_archive_that_is_there(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = shutil.make_archive(str(official / "made"), "gztar", official)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(Path(archive).read_bytes()).hexdigest())
    root = official / "data"
    (root / "cifar10").mkdir(parents=True)
    shutil.move(archive, root / "cifar10" / CIFAR10.filename)
    assert len(read(DatasetConfig(type="cifar10", download=True), root).names) == 120


def test_a_download_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "no-such-server.tar.gz").as_uri())
    with pytest.raises(DataError, match=r"cannot be downloaded .*: put the official files there$"):
        read(DatasetConfig(type="cifar10", download=True), tmp_path)


@pytest.mark.parametrize("fault", [{"bands": [1, 2]}, {"bands": [0, 1, 2]}, {"limits": [1]}])
def test_bands_are_three_from_1_and_limits_are_two(fault: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DatasetConfig(type="image_folder", **fault)


def test_bands_and_limits_are_for_files() -> None:
    with pytest.raises(DataError, match="lie in no files: remove bands, limits, channels and page"):
        read(DatasetConfig(type="digits", limits=[0, 16]), None)


@pytest.mark.parametrize(
    ("limit", "left"),
    [
        ({"train": 9}, ([6, 3], [6, 4], [7, 5])),
        ({"val": 4}, ([40, 20], [2, 2], [7, 5])),
        ({"test": 6}, ([40, 20], [6, 4], [4, 2])),
        ({"train": 12, "val": 2, "test": 1000}, ([8, 4], [1, 1], [7, 5])),
    ],
)
def test_each_part_may_have_a_limit_of_its_own(
    tmp_path: Path, limit: dict[str, int], left: tuple[list[int], ...]
) -> None:
    counts = {"train/a": 40, "train/b": 20, "val/a": 6, "val/b": 4, "test/a": 7, "test/b": 5}
    whole = image_folder(fill(tmp_path, counts))
    source = image_folder(tmp_path, limit=limit)
    assert_disjoint_and_complete(source)
    assert tuple(per_class(source, part) for part in ("train", "val", "test")) == left
    for part in ("train", "val", "test"):
        assert names(source, part) <= names(whole, part)


def test_parts_that_are_cut_from_training_may_have_a_limit_too(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 50, "b": 50})
    whole, source = image_folder(tmp_path), image_folder(tmp_path, limit={"val": 2, "test": 4})
    assert names(source, "train") == names(whole, "train")
    assert [len(source.parts[part]) for part in ("val", "test")] == [2, 4]
    unlabelled = image_folder(tmp_path, limit={"train": 5, "test": 1}, labels=False)
    assert [len(unlabelled.parts[part]) for part in ("train", "val", "test")] == [5, 8, 1]


@pytest.mark.parametrize(
    "limit", [{}, {"trian": 5}, {"train": 0}, {"test": 2.5}, {"val": True}, 1, True, "9", [4]]
)
def test_a_limit_that_is_none_is_one_error(limit: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig(type="digits", limit=limit)
    (error,) = caught.value.errors()
    assert "must be a whole number from 2 on, or numbers of parts" in error["msg"]


def test_a_limit_of_a_part_leaves_images_of_every_class(tmp_path: Path) -> None:
    fill(tmp_path, {f"{part}/{c}": 9 for part in ("train", "val", "test") for c in "abc"})
    for part, limit, cure in (
        ("train", 5, "2 images each: set it to 6"),
        ("test", 2, "1 image each: set it to 3"),
    ):
        with pytest.raises(
            DataError, match=f"limit {limit} of {part} is too small .* {cure} or more"
        ):
            image_folder(tmp_path, limit={part: limit})


@pytest.mark.parametrize("place", ["class", "image", "folder"])
def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path, place: str) -> None:
    odd = os.fsdecode(b"\xff")
    folder = fill(tmp_path / (odd if place == "folder" else "set"), {"a": 6, "b": 6})
    if place == "class":
        (folder / "a").rename(folder / odd)
    elif place == "image":
        next((folder / "a").iterdir()).rename(folder / "a" / f"{odd}.png")
    with pytest.raises(DataError, match="^names that are not UTF-8: .*: rename these files or"):
        image_folder(folder)
