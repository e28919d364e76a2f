"""Test images that are trained on are found by content, whatever they are called."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.contents.copies import copies_over_parts, settle_copies
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.loading.decoded_cache import load_table
from trainables.loading.fingerprints import content_hashes


def photograph(path: Path, number: int) -> None:
    """A picture of its own for each number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (number % 256, number // 256, 7)).save(path)


def photographs(folder: Path, parts: tuple[str, ...] = ("train", "val", "test")) -> Path:
    number = 0
    for part in parts:
        for name in "ab":
            for i in range(6):
                number += 1
                photograph(folder / part / name / f"{i}.png", number)
    return folder


def table(folder: Path, **settings: Any) -> Any:
    config = DatasetConfig(type="image_folder", path=str(folder), size=4, **settings)
    return load_table(config, folder.parent / "cache")


def counts(folder: Path, **settings: Any) -> list[int]:
    opened = table(folder, **settings)
    return [len(opened.parts[part]) for part in ("train", "val", "test")]


def test_parts_without_a_common_image_are_right(tmp_path: Path) -> None:
    assert counts(photographs(tmp_path / "set")) == [12, 12, 12]


@pytest.mark.parametrize("labels", [True, False])
def test_a_test_folder_that_is_the_training_folder_is_refused(tmp_path: Path, labels: bool) -> None:
    folder = photographs(tmp_path / "set", ("train",))
    (folder / "test").symlink_to("train", target_is_directory=True)
    with pytest.raises(DataError) as caught:
        table(folder, labels=labels)
    assert "12 test images are in " in str(caught.value)
    assert " too, by content (test/a/" in str(caught.value)
    assert " = train/a/" in str(caught.value)


@pytest.mark.parametrize("how", ["copy", "link", "hard link"])
@pytest.mark.parametrize(
    ("judged", "learned"), [("test", "train"), ("val", "train"), ("test", "val")]
)
def test_a_copy_under_another_name_is_named_with_its_pair_and_cure(
    tmp_path: Path, judged: str, learned: str, how: str
) -> None:
    folder = photographs(tmp_path / "set")
    copy, original = folder / judged / "a/copy.png", folder / learned / "a/3.png"
    if how == "copy":
        copy.write_bytes(original.read_bytes())
    else:
        (os.link if how == "hard link" else os.symlink)(original, copy)
    with pytest.raises(DataError) as caught:
        table(folder)
    assert str(caught.value) == (
        f"1 of 13 {judged} images is in {learned} too, by content ({judged}/a/copy.png = "
        f"{learned}/a/3.png): remove one of each, or set `on_duplicates: drop` to leave it out "
        f"of {learned}, or `keep`"
    )
    left = {part: 12 for part in ("train", "val", "test")} | {judged: 13, learned: 11}
    assert counts(folder, on_duplicates="drop") == list(left.values())


def test_the_same_file_under_two_labels_is_refused_dropped_or_kept(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "set")
    (folder / "train/b/copy.png").write_bytes((folder / "train/a/2.png").read_bytes())
    with pytest.raises(DataError) as caught:
        table(folder)
    fault = "1 image of equal content has two labels (train/a/2.png = train/b/copy.png)"
    assert str(caught.value) == (
        f"{fault}: keep the right one of each, or set `on_duplicates: drop` to leave both out, or "
        "`keep`"
    )
    assert counts(folder, on_duplicates="drop") == [11, 12, 12]
    assert counts(folder, on_duplicates="keep") == [13, 12, 12]
    source = read(DatasetConfig(type="image_folder", path=str(folder)), None)
    kept = settle_copies(source, content_hashes(source, tmp_path / "m"), "keep")
    assert kept.cautions == (f"{fault}; kept (`on_duplicates: keep`)",)


def test_of_a_copy_with_another_label_over_two_parts_the_test_image_stays(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "set")
    (folder / "test/b/copy.png").write_bytes((folder / "train/a/2.png").read_bytes())
    with pytest.raises(DataError, match="1 of 13 test images is in train too.*; 1 image .* two la"):
        table(folder)
    assert counts(folder, on_duplicates="drop") == [11, 12, 13]


def test_what_is_dropped_of_which_part_is_said(tmp_path: Path) -> None:
    """Of the test only images go whose label is unknown: they have two."""
    folder = photographs(tmp_path / "set")
    for copy, original in (
        ("test/a/x.png", "train/a/1.png"),
        ("test/a/y.png", "val/b/1.png"),
        ("test/b/z.png", "test/a/2.png"),
        ("train/b/z.png", "test/a/2.png"),
    ):
        (folder / copy).write_bytes((folder / original).read_bytes())
    source = read(DatasetConfig(type="image_folder", path=str(folder)), None)
    settled = settle_copies(source, content_hashes(source, tmp_path / "m"), "drop")
    assert settled.cautions == ()
    assert settled.source.notes == (
        "copies are left out: 2 of train, 1 of val, 2 of test (`on_duplicates: drop`)",
    )


def test_kept_copies_over_parts_stay_and_are_said(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "set")
    for i in range(5):
        (folder / f"test/a/c{i}.png").write_bytes((folder / f"train/a/{i}.png").read_bytes())
    assert counts(folder, on_duplicates="keep") == [12, 12, 17]
    source = read(DatasetConfig(type="image_folder", path=str(folder)), None)
    (line,) = settle_copies(source, content_hashes(source, tmp_path / "m"), "keep").cautions
    assert line == (
        "5 of 17 test images are in train too, by content (test/a/c0.png = train/a/0.png, "
        "test/a/c1.png = train/a/1.png, test/a/c2.png = train/a/2.png and 2 more); kept "
        "(`on_duplicates: keep`)"
    )


def test_copies_within_a_part_train_and_damaged_files_are_no_copies(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "set")
    (folder / "train/a/copy.png").write_bytes((folder / "train/a/2.png").read_bytes())
    (folder / "train/a/empty.png").touch()
    (folder / "test/b/empty.png").touch()
    assert counts(folder, on_corrupt="skip") == [13, 12, 12]


def test_empty_tiles_of_a_set_with_masks_are_no_copies(tmp_path: Path) -> None:
    for number in range(20):
        photograph(tmp_path / f"set/images/{number}.png", 5)  # one color
        mask = Image.new("L", (4, 4))
        mask.putpixel((0, 0), 1)
        (tmp_path / "set/masks").mkdir(exist_ok=True)
        mask.save(tmp_path / f"set/masks/{number}.png")
    (tmp_path / "set/classes.csv").write_text("id,name\n0,sky\n1,tree\n")
    config = DatasetConfig(type="mask_folders", path=str(tmp_path / "set"), size=4)
    assert len(load_table(config, tmp_path / "cache").images) == 20
    for number in (1, 2):  # the same, with something on it
        image = Image.new("RGB", (4, 4))
        image.putpixel((0, 0), (9, 9, 9))
        image.save(tmp_path / f"set/images/{number}.png")
    source = read(config, None)
    part = {source.names[row]: part for part, rows in source.parts.items() for row in rows}
    if part["images/1.png"] != part["images/2.png"]:
        assert len(load_table(config, tmp_path / "cache").parts["train"]) > len(
            source.parts["train"]
        )


def test_copies_in_a_set_that_is_cut_here_are_kept_in_training(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for label, name in enumerate("ab"):
        for i in range(30):
            photograph(folder / name / f"{i}.png", 100 * label + i // 2)  # each twice
    for name in "ab":
        for i in range(30):
            photograph(folder / name / f"single{i}.png", 300 + 50 * ord(name) + i)
    source = read(DatasetConfig(type="image_folder", path=str(folder)), None)
    contents = content_hashes(source, tmp_path / "manifest")
    assert copies_over_parts(source, contents)
    settled = settle_copies(source, contents, "error").source
    assert copies_over_parts(settled, contents) == {}
    assert sorted(np.concatenate(list(settled.parts.values()))) == list(range(120))
    assert any("copies of training images are trained on" in note for note in settled.notes)


def test_dropping_must_leave_images_of_every_class(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "set", ("train",))
    (folder / "test").symlink_to("train", target_is_directory=True)
    with pytest.raises(DataError, match="all images of .*train, .* are copies of others"):
        table(folder, on_duplicates="drop")


def test_copies_of_the_built_in_sets_are_none() -> None:
    """Else a study that came with the product would be refused."""
    for kind in ("digits", "digit_scenes"):
        source: Source = read(DatasetConfig(type=kind), None)
        assert copies_over_parts(source, content_hashes(source, Path("unused"))) == {}
