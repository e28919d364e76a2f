"""Tests of predict: images are checked before anything starts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.cli.main import main


def picture(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)).save(path)
    return path


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *images: Path) -> str:
    home = tmp_path / "home"
    assert main(["predict", "s/a/0", *map(str, images), "--home", str(home)]) == 2
    assert not home.exists()
    return capsys.readouterr().err


def test_a_file_that_is_no_image_or_not_there_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert f"cannot read {tmp_path}/a.jpg: not an image" in refused(
        capsys, tmp_path, tmp_path / "a.jpg"
    )
    assert f"cannot read {tmp_path}/b.jpg: No such file" in refused(
        capsys, tmp_path, tmp_path / "b.jpg"
    )


def test_two_images_of_one_name_are_refused(tmp_path: Path, capsys) -> None:
    first, second = picture(tmp_path / "x" / "a.png"), picture(tmp_path / "y" / "a.jpg")
    message = refused(capsys, tmp_path, first, second)
    assert f"{first} and {second} would be written to one file" in message
