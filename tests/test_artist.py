"""A process of its own draws the maps of one Run after another, and says why where it cannot."""

from pathlib import Path

import numpy as np

from orchestrator.artist import MAPS, Artist, feature_file, kept_features
from orchestrator.tensors import save_arrays
from tests.integration.command import wait_for


def keep(folder: Path, epoch: int, count: int = 30) -> Path:
    """Features of an epoch, as a worker leaves them. Returns their folder."""
    rng = np.random.default_rng(epoch)
    path = folder / feature_file(epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = np.arange(count) % 2
    arrays = {
        "features": rng.normal(size=(count, 4)).astype(np.float32) + labels[:, None],
        "labels": labels,
        "rows": np.arange(count),
        "classes": np.array(["a", "b"]),
    }
    save_arrays(arrays, path)
    return path.parent


def test_features_are_found_in_the_order_of_their_epochs(tmp_path: Path):
    for epoch in (10, 2, 1):
        folder = keep(tmp_path, epoch)
    assert list(kept_features(folder)) == [1, 2, 10]


def test_one_folder_after_another_is_drawn(tmp_path: Path):
    artist = Artist()
    folders = [keep(tmp_path / name, 1) for name in "ab"]
    assert not artist.has_drawn(folders[0])
    assert not artist.has_drawn(folders[1])  # it waits for its turn
    for folder in folders:
        wait_for(lambda folder=folder: artist.has_drawn(folder))
        names = {path.name for path in (folder / MAPS).iterdir()}
        assert names == {"tsne_epoch1.png", "tsne_epoch1.html"}
    artist.wait()
    assert artist.faults == {}


def test_a_fault_is_kept_and_nothing_is_waited_for(tmp_path: Path):
    artist = Artist()
    folder = keep(tmp_path, 1)
    (folder / "epoch_00001.npz").write_bytes(b"PK\3\4 and no more")
    wait_for(lambda: artist.has_drawn(folder))
    artist.wait()
    assert "epoch_00001.npz is damaged" in artist.faults[folder]
    assert sorted(path.name for path in folder.iterdir()) == ["epoch_00001.npz"]
