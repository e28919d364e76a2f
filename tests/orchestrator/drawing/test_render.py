"""Maps are drawn by a process of their own, from what a Run has kept, all of them or none."""

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
import pytest

from orchestrator.drawing.render import draw
from orchestrator.drawing.render_process import RenderProcess
from orchestrator.storage.tensors import save_arrays
from tests.trainables.monitoring.test_architecture import ONE
from trainables.monitoring.architecture import as_text
from trainables.record_files import ARCHITECTURE, MAPS, feature_file, kept_features


def keep(run: Path, *epochs: int, images: int = 12) -> Path:
    """The features of two well separated classes. Returns their folder."""
    draw = np.random.default_rng(0)
    labels = np.arange(images) % 2
    for epoch in epochs:
        features = draw.normal(size=(images, 8)).astype(np.float32) + 5 * labels[:, None]
        path = run / feature_file(epoch)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(
            {
                "features": features.astype(np.float32),
                "labels": labels,
                "rows": np.arange(images),
                "classes": np.array(["cat", "dog"]),
            },
            path,
        )
    return path.parent


@pytest.fixture
def artist() -> Iterator[RenderProcess]:
    made = RenderProcess()
    yield made
    made.close()


def children() -> set[psutil.Process]:
    """The processes that this one has started."""
    return set(psutil.Process().children())


def drawn(artist: RenderProcess, folder: Path) -> None:
    deadline = time.monotonic() + 600
    while not artist.has_drawn(folder):
        assert time.monotonic() < deadline
        artist.wait()


def test_every_kept_epoch_becomes_a_picture_and_a_page(artist: RenderProcess, tmp_path: Path):
    folder = keep(tmp_path, 1, 30)
    assert list(kept_features(folder)) == [1, 30]
    drawn(artist, folder)
    assert artist.errors == {}
    names = {path.name for path in (folder / MAPS / "plots").iterdir()}
    assert names == {f"tsne_epoch{n}.{kind}" for n in (1, 30) for kind in ("png", "html")}
    assert (folder / MAPS / "plots" / "tsne_epoch1.png").read_bytes().startswith(b"\x89PNG")


def test_folders_are_drawn_one_after_another(artist: RenderProcess, tmp_path: Path):
    folders = [keep(tmp_path / name, 1) for name in "ab"]
    assert not artist.has_drawn(folders[0]) and not artist.has_drawn(folders[1])
    for folder in folders:
        drawn(artist, folder)
        assert (folder / MAPS).is_dir()


def test_a_process_that_is_killed_costs_the_folder_that_it_drew(
    artist: RenderProcess, tmp_path: Path
):
    folders, before = [keep(tmp_path / name, *range(1, 9)) for name in "ab"], children()
    assert not artist.has_drawn(folders[0]) and not artist.has_drawn(folders[1])
    (process,) = children() - before
    process.kill()
    for folder in folders:
        drawn(artist, folder)
    assert list(artist.errors) == folders[:1]
    assert (folders[1] / MAPS).is_dir() and not (folders[0] / MAPS).exists()


def test_nothing_is_left_of_a_process_that_is_closed_while_it_draws(tmp_path: Path):
    artist, folder, before = RenderProcess(), keep(tmp_path, *range(1, 9)), children()
    assert not artist.has_drawn(folder) and children() > before
    artist.close()
    assert children() == before


def test_what_is_drawn_already_needs_no_process(artist: RenderProcess, tmp_path: Path):
    folder = keep(tmp_path, 1)
    assert draw(folder) is None
    before = (folder / MAPS).stat().st_mtime_ns
    assert artist.has_drawn(folder)
    assert draw(folder) is None and (folder / MAPS).stat().st_mtime_ns == before


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_a_damaged_file_is_reported_and_leaves_no_part(
    artist: RenderProcess, tmp_path: Path, content
):
    folder = keep(tmp_path, 1, 2)
    path = folder / "epoch_00002.npz"
    path.write_bytes(path.read_bytes()[:300] if content is None else content)
    drawn(artist, folder)
    assert artist.errors[folder] == f"{folder}: epoch_00002.npz is damaged"
    assert {item.name for item in folder.iterdir()} == {"epoch_00001.npz", "epoch_00002.npz"}


def test_too_few_images_for_a_map_cost_the_map_alone(artist: RenderProcess, tmp_path: Path):
    folder = keep(tmp_path, 1, images=2)
    save_arrays({"json": np.array(json.dumps(asdict(ONE)))}, folder.parent / ARCHITECTURE)
    drawn(artist, folder)
    assert artist.errors == {}
    plots = folder / MAPS / "plots"
    assert {item.name for item in plots.iterdir()} == {
        "architecture.png",
        "architecture.svg",
        "tsne.txt",
    }
    assert (plots / "tsne.txt").read_text() == (
        "no t-SNE map: 2 validation images, and it needs 4\n"
    )


def test_what_a_model_is_made_of_becomes_a_diagram_and_a_table(tmp_path: Path):
    path = tmp_path / "run" / ARCHITECTURE
    path.parent.mkdir(parents=True)
    save_arrays({"json": np.array(json.dumps(asdict(ONE)))}, path)
    assert draw(path.parent) is None
    maps = path.parent / MAPS
    assert {item.name for item in (maps / "plots").iterdir()} == {
        "architecture.svg",
        "architecture.png",
    }
    assert (maps / "tables" / "architecture.txt").read_text("utf-8") == as_text(ONE)


def test_a_damaged_diagram_is_reported(tmp_path: Path):
    path = tmp_path / "run" / ARCHITECTURE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no archive")
    assert str(draw(path.parent)).endswith("architecture.npz is damaged")
    assert [item.name for item in path.parent.iterdir()] == ["architecture.npz"]
