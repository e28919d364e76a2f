"""Near copies of a cache are looked for once, and kept with it."""

from pathlib import Path

import pytest

from tests.trainables.contents.test_near_copies import saved_anew, scenes
from trainables.data.datasets import DatasetConfig, read
from trainables.loading.decoded_cache import build, load_table
from trainables.loading.near_tables import find_near, known_near, near_line


def cache_of(folder: Path, cache: Path) -> Path:
    config = DatasetConfig(type="image_folder", path=str(folder), size=32)
    return cache / load_table(config, cache).fingerprint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Different scenes; the first test image of class a is a training image, saved anew."""
    pictures = scenes(24)
    for part in ("train", "test"):
        for name in "ab":
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for number in range(6):
                pictures.pop().save(tmp_path / "set" / part / name / f"{number}.png")
    first = saved_anew(scenes(1, seed=5)[0])
    scenes(1, seed=5)[0].save(tmp_path / "set/train/a/0.png")
    first.save(tmp_path / "set/test/b/1.png")
    return tmp_path / "set"


def test_a_test_image_that_was_saved_anew_is_found_once(folder: Path, tmp_path: Path) -> None:
    cache = cache_of(folder, tmp_path / "cache")
    assert known_near(cache, cache) is None
    (near,) = find_near(cache, cache)
    assert (near.part, near.count, near.total) == ("test", 1, 12)
    assert near.example == ("test/b/1.png", "train/a/0.png")
    assert known_near(cache, cache) == [near]
    assert near_line(near, "mine", "mine") == (
        "warning: 1 of 12 test images looks nearly like training images (test/b/1.png ~ "
        "train/a/0.png): if they are copies, saved anew or resized, remove one of each"
    )


def test_what_is_kept_leaves_the_cache_undamaged(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(folder, tmp_path / "cache")
    find_near(cache, cache)
    config = DatasetConfig(type="image_folder", path=str(folder), size=32)
    assert build(read(config, None), config, cache.name, cache.parent) == cache
    assert caplog.messages == []
    for file in (cache / "near_copies").iterdir():
        file.write_bytes(b"damaged")
    assert known_near(cache, cache) is None
    assert len(find_near(cache, cache)) == 1


def test_another_data_set_that_trains_on_them_is_compared_too(folder: Path, tmp_path: Path) -> None:
    for number in range(4):
        for name in "xy":
            (tmp_path / "other" / name).mkdir(parents=True, exist_ok=True)
            seed = 10 * number + ord(name)
            scenes(1, seed)[0].save(tmp_path / "other" / name / f"{number}.png")
    saved_anew(scenes(1, seed=5)[0]).save(tmp_path / "other/x/0.jpg")
    own = cache_of(folder, tmp_path / "cache")
    config = DatasetConfig(type="image_folder", path=str(tmp_path / "other"), size=48)
    table = load_table(config, tmp_path / "cache")
    rows = {table.names[row] for row in table.parts["train"]}
    found = find_near(own, tmp_path / "cache" / table.fingerprint)
    expected = [("test/b/1.png", "x/0.jpg")] if "x/0.jpg" in rows else []
    assert [near.example for near in found] == expected


def test_the_built_in_sets_have_none(tmp_path: Path) -> None:
    """Images of 8 px are too small to tell; scenes of two photographs are not the same."""
    for kind in ("digits", "digit_scenes"):
        cache = tmp_path / load_table(DatasetConfig(type=kind), tmp_path).fingerprint
        assert find_near(cache, cache) == []
