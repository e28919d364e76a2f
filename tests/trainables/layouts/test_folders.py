"""What is not read is counted by ending and reason; litter of other programs is known."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.trainables.layouts.test_class_folders import make
from trainables.layouts.class_folders import list_images, list_unlabelled
from trainables.layouts.folders import (
    HIDDEN,
    LITTER,
    NO_TARGET,
    NOT_A_FILE,
    NOT_AN_IMAGE,
    NOT_READ,
    Scan,
    passed_over_text,
)


def test_files_are_counted_by_ending_and_reason(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg", "2.JFIF", "3.ppm", "a.txt", "b.TXT", "c.heic", ".d.jpg", "e.")
    os.mkfifo(tmp_path / "f.jpg")
    os.mkfifo(tmp_path / "g")
    (tmp_path / "h").symlink_to(tmp_path / "gone")
    (tmp_path / "4.png").symlink_to(tmp_path / "gone")
    scan = Scan(tmp_path)
    assert scan.list() == ([], ["1.jpg", "2.JFIF", "3.ppm", "4.png"])
    assert scan.passed == {
        (".txt", NOT_AN_IMAGE): 2,
        (".heic", NOT_READ): 1,
        (".jpg", HIDDEN): 1,
        ("no ending", NOT_AN_IMAGE): 1,
        (".jpg", NOT_A_FILE): 1,
        ("no ending", NOT_A_FILE): 1,
        ("no ending", NO_TARGET): 1,
    }
    assert scan.list() == ([], ["1.jpg", "2.JFIF", "3.ppm", "4.png"])
    assert sum(scan.passed.values()) == 8  # once, however often it is listed


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "PPM", "BMP"])
def test_without_an_ending_the_content_decides(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "0a1b2c", kind)
    (tmp_path / "README").write_text("BMW P5 II* GIF8 are the first words")
    scan = Scan(tmp_path)
    assert scan.list() == ([], ["0a1b2c"])
    assert scan.passed == {("no ending", NOT_AN_IMAGE): 1}


LEFT = ("Thumbs.db", ".DS_Store", "._1.jpg", "desktop.ini", "@eaDir/1.jpg/SMALL.jpg")
LEFT += ("#snapshot/1.jpg", "RECYCLER/1.jpg", "Network Trash Folder/1.jpg")
LEFT += (".ipynb_checkpoints/1-checkpoint.jpg", "1.jpg.part", "__MACOSX/._1.jpg", "lost+found/")


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("place", ["", "cat/", "dog/"])
def test_litter_is_known_everywhere(tmp_path: Path, place: str, labels: bool) -> None:
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", *(f"{place}{name}" for name in LEFT))
    scan = Scan(tmp_path)
    listing = list_images(scan) if labels else list_unlabelled(scan)
    images = [name for names in listing["train"].values() for name in names]
    assert images == ["cat/1.jpg", "dog/1.jpg"]
    assert {reason for _, reason in scan.passed} == {LITTER}
    assert sum(scan.passed.values()) == len(LEFT)


def test_images_and_folders_that_no_layout_reads_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "cover.jpg", "cat/1.jpg", "dog/1.jpg", "notes.md")
    scan = Scan(tmp_path)
    list_images(scan)
    assert passed_over_text(scan.passed) == (
        "1 .jpg (beside the class folders); 1 .md (not an image)"
    )


def test_the_text_groups_by_reason_and_is_cut(tmp_path: Path) -> None:
    passed = {(f".{i}", NOT_AN_IMAGE): 10 - i for i in range(10)} | {(".jpg", HIDDEN): 1234}
    assert passed_over_text(passed) == (
        "1,234 .jpg (hidden); 10 .0, 9 .1, 8 .2, 7 .3, 6 .4, 5 .5, 4 .6, 3 .7 and 2 more "
        "(not an image)"
    )
    assert passed_over_text({}) == ""
