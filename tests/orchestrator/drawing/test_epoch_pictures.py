"""Pictures of single epochs are drawn while a Run trains, under the names that they keep."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.drawing.epoch_pictures import draw_new
from orchestrator.drawing.render import draw
from orchestrator.pages.pictures import FOLDER, VIEWS, files_of, mask_key
from orchestrator.storage.run_records import RunFolder, Store
from orchestrator.storage.tensors import save_arrays
from trainables.record_files import FEATURES, MAPS, mask_file, view_file


def keep(run: RunFolder, file: str) -> None:
    """Keep what `watched_masks` or `training_views` return, of two images."""
    draw = np.random.default_rng(0)
    side = 8 if "views" in file else 16
    arrays = {"images": draw.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)}
    if "views" in file:
        arrays |= {name: np.full((2, side, side, 3), value, np.uint8)
                   for name, value in (("one", 0), ("two", 200))}  # fmt: skip
    else:
        arrays |= {"truth": np.zeros((2, 16, 16), np.uint8), "names": np.array(["a", "b"]),
                   "predicted": np.ones((2, 16, 16), np.uint8), "classes": np.array(["x", "y"]),
                   "colours": np.array([[9, 8, 7], [1, 2, 3]], np.uint8)}  # fmt: skip
    writer = run.writer(run.attempt() or run.begin_attempt())
    writer.put_optional(file, partial(save_arrays, arrays))


def test_each_epoch_is_drawn_once_as_the_render_process_draws_it_at_the_end(tmp_path: Path) -> None:
    run, early = Store(tmp_path / "store").run("a" * 20), tmp_path / "early"
    for file in (mask_file(1), view_file(1)):
        keep(run, file)
    folder = run.path / FEATURES
    drawn = set(draw_new(folder, set(), early))
    assert drawn == {"masks_00001.npz", "views_00001.npz"}
    assert draw_new(folder, drawn, tmp_path / "nothing") == []
    assert not (tmp_path / "nothing").exists()
    keep(run, mask_file(3))
    assert draw_new(folder, drawn, early) == ["masks_00003.npz"]
    assert draw(folder) is None
    last = {path.name: path.read_bytes() for path in (folder / MAPS / FOLDER).iterdir()}
    assert last == {path.name: path.read_bytes() for path in (early / FOLDER).iterdir()}
    assert set(files_of(VIEWS, 1)) | set(files_of(mask_key(2, "truth"), 3)) <= last.keys()


def test_views_stand_below_their_images(tmp_path: Path) -> None:
    run = Store(tmp_path / "store").run("a" * 20)
    keep(run, view_file(2))
    draw_new(run.path / FEATURES, set(), tmp_path)
    with Image.open(tmp_path / FOLDER / files_of(VIEWS, 2)[0]) as picture:
        pixels = np.asarray(picture)
    times = pixels.shape[0] // (3 * 16 + 2)
    assert pixels.shape == (50 * times, 33 * times, 3)
    row = pixels[:, 3 * times]
    assert (row[20 * times] == 0).all() and (row[40 * times] == 200).all()
    assert (row[16 * times] == 255).all()  # the gap


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    run = Store(tmp_path / "store").run("a" * 20)
    keep(run, view_file(1))
    (run.path / view_file(1)).write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"views_00001\.npz is damaged"):
        draw_new(run.path / FEATURES, set(), tmp_path)
