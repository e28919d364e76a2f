"""Tests of predict: images are checked before anything starts."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.cli.main import main
from orchestrator.cli.predict import output_names


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


@pytest.mark.parametrize("out", ["file", "file/below", "/proc/none", "x" * 300])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(
    tmp_path: Path, capsys, out: str
) -> None:
    (tmp_path / "file").write_text("mine")
    image, home = picture(tmp_path / "x" / "a.png"), tmp_path / "home"
    given = ["predict", "s/a/0", str(image), "--home", str(home), "--out", str(tmp_path / out)]
    assert main(given) == 2
    assert not home.exists()
    assert capsys.readouterr().err.startswith("error: cannot write into --out ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.png", "y/b.png"], ["a", "b"]),
        (["x/a.png", "x/a.jpg", "b.png"], ["a.png", "a.jpg", "b"]),
        (["x/0.png", "y/0.png"], ["x_0.png", "y_0.png"]),
        (["p/x/0.png", "q/x/0.png", "q/y/1.png"], ["p_x_0.png", "q_x_0.png", "1"]),
        (["/0.png", "x/0.png", "../0.png"], ["0.png_2", "x_0.png", "0.png"]),
    ],
)
def test_results_have_a_name_of_their_own(paths: list[str], names: list[str]) -> None:
    assert output_names(list(map(Path, paths))) == names


def test_names_of_results_differ_and_are_short_enough_for_every_disk() -> None:
    parts = ["a", "b", "a_b", "c.png", "..", "é" * 120]
    paths = [Path(x, y, z) for x in parts for y in parts for z in parts]
    names = output_names(paths)
    assert len(set(names)) == len(paths)
    assert max(len(f"{name}_overlay.png".encode()) for name in names) <= 255
    assert not any("/" in name or name.startswith(".") for name in names)
