"""The decoded images are complete or absent, whatever happens to the builder or to the files."""

import json
import multiprocessing
import os
import resource
import shutil
import time
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

from tests.conftest import damage as spoil
from trainables.contents import file_hashes
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.loading import decoded_cache as cache
from trainables.loading.image_table import ImageTable, open_table

SPAWN = multiprocessing.get_context("spawn")
OLD = 1_600_000_000  # a modification time long past, in s


def make(folder: Path, per_class: int = 10, side: int = 8) -> Path:
    """Two classes of noise, `a` and `b`, as PNG."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:02}.png")
            os.utime(folder / name / f"{i:02}.png", (OLD, OLD))
    return folder


def setup(folder: Path, **settings: Any) -> tuple[Source, DatasetConfig]:
    config = DatasetConfig(type="image_folder", path=str(folder), **({"size": 8} | settings))
    return read(config, None), config


def print_of(folder: Path, **settings: Any) -> str:
    source, config = setup(folder, **settings)
    return cache.fingerprint(source, config, folder.parent / "manifest")


def build(folder: Path, **settings: Any) -> ImageTable:
    source, config = setup(folder, **settings)
    path = cache.build(source, config, print_of(folder, **settings), folder.parent / "cache")
    return open_table(path)


def left_in(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.endswith(".lock"))


def damage(folder: Path) -> None:
    """Three unreadable images: cut off, empty and no image."""
    whole = (folder / "a/00.png").read_bytes()
    (folder / "a/00.png").write_bytes(whole[:-60])
    (folder / "a/01.png").write_bytes(b"")
    (folder / "b/02.png").write_bytes(b"hello")


def test_the_fingerprint_does_not_depend_on_where_the_images_lie(tmp_path: Path) -> None:
    before = print_of(make(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "elsewhere")
    assert print_of(tmp_path / "elsewhere") == before
    assert len(before) == 16 and int(before, 16)


def test_the_fingerprint_changes_with_content_label_name_split_and_size(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    other = ({}, {"size": 9}, {"split_seed": 1}, {"limit": 8}, {"on_corrupt": "skip"})
    seen = [print_of(folder, **settings) for settings in other]
    Image.new("RGB", (8, 8)).save(folder / "a/00.png")
    seen.append(print_of(folder))
    (folder / "a/00.png").rename(folder / "b/99.png")
    seen.append(print_of(folder))
    (folder / "b/99.png").rename(folder / "b/98.png")
    seen.append(print_of(folder))
    (folder / "a").rename(folder / "c")
    seen.append(print_of(folder))
    assert len(set(seen)) == len(seen)


def test_the_fingerprint_ignores_settings_that_change_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    assert print_of(folder, download=True) == print_of(folder)
    assert print_of(folder, size=64) == print_of(folder, size=None)


def test_unchanged_files_are_not_read_for_a_second_fingerprint(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    before = print_of(folder)
    size = (folder / "a/00.png").stat().st_size
    (folder / "a/00.png").write_bytes(b"x" * size)
    os.utime(folder / "a/00.png", (OLD, OLD))
    assert print_of(folder) == before


def test_images_held_in_memory_are_fingerprinted_by_their_pixels(tmp_path: Path) -> None:
    config = DatasetConfig(type="digits")
    source = read(config, None)
    painted = replace(source, decode=lambda index: source.decode(max(index, 1)))
    prints = [cache.fingerprint(s, config, tmp_path / "m") for s in (source, source, painted)]
    assert prints[0] == prints[1] != prints[2]


def test_a_table_holds_the_pixels_labels_and_parts_of_the_source(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", per_class=300)  # more than a chunk
    source, _ = setup(folder)
    table = build(folder)
    assert (table.images.shape, table.images.dtype) == ((600, 3, 8, 8), np.uint8)
    assert isinstance(table.images, np.memmap) and not table.images.flags.writeable
    for index in (0, 299, 599):
        assert np.array_equal(table.images[index].transpose(1, 2, 0), source.decode(index))
    assert table.labels.tolist() == source.labels.tolist()
    assert all(np.array_equal(table.parts[p], source.parts[p]) for p in ("train", "val", "test"))
    assert (table.classes, table.size) == (("a", "b"), 8)
    assert table.fingerprint == print_of(folder)


def test_without_labels_a_table_has_no_classes_and_another_fingerprint(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    table = build(folder, labels=False)
    assert (table.classes, table.labels.tolist()) == ((), [-1] * 20)
    assert [len(table.parts[part]) for part in ("train", "val", "test")] == [14, 2, 4]
    assert table.fingerprint == print_of(folder, labels=False) != print_of(folder)
    meta = json.loads((tmp_path / "cache" / table.fingerprint / "meta.json").read_text())
    assert meta["classes"] == []


def test_photographs_of_any_shape_become_squares(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", side=60)  # files large enough for several threads
    Image.new("RGB", (50, 20), "red").save(folder / "a/00.png")
    Image.new("L", (20, 50), 7).save(folder / "a/01.png")
    table = build(folder, size=16)
    assert (table.images[0] == np.array([255, 0, 0])[:, None, None]).all()
    assert (table.images[1] == 7).all()


def test_progress_ends_at_the_number_of_images(tmp_path: Path) -> None:
    source, config = setup(make(tmp_path / "data", per_class=300))
    seen: list[tuple[int, int]] = []
    cache.build(source, config, "f", tmp_path / "cache", lambda *done: seen.append(done))
    assert seen == [(256, 600), (512, 600), (600, 600)]


def test_a_second_build_decodes_nothing(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    build(folder)
    source, config = setup(folder)
    unused = replace(source, decode=lambda index: pytest.fail("decoded again"))
    cache.build(unused, config, print_of(folder), tmp_path / "cache")


def test_unreadable_images_are_counted_and_named_and_nothing_is_left(tmp_path: Path) -> None:
    damage(make(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        build(tmp_path / "data")
    assert str(caught.value) == (
        "data set has 3 unreadable images: a/00.png (truncated), a/01.png (empty file), "
        "b/02.png (not an image): repair them or set `on_corrupt: skip`"
    )
    assert left_in(tmp_path / "cache") == []


def test_many_unreadable_images_still_make_one_line(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    for i in range(10):
        (folder / f"a/{i:02}.png").write_bytes(b"")
        (folder / f"b/{i:02}.png").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"20 unreadable images: a/00.png, .* and 15 more \(empty file\): rep"
    ):
        build(folder)


def test_skip_leaves_unreadable_images_out_of_every_part(tmp_path: Path) -> None:
    damage(make(tmp_path / "data"))
    table = build(tmp_path / "data", on_corrupt="skip")
    kept = np.sort(np.concatenate(list(table.parts.values())))
    assert kept.tolist() == [i for i in range(20) if i not in (0, 1, 12)]
    assert not table.images[[0, 1, 12]].any()
    meta = json.loads((tmp_path / "cache" / table.fingerprint / "meta.json").read_text())
    assert meta["skipped"]["a/00.png"] == "truncated" and len(meta["skipped"]) == 3


def test_skip_may_not_empty_a_class(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    for file in (folder / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="all images of class 'b' of train are unreadable"):
        build(folder, on_corrupt="skip")
    assert left_in(tmp_path / "cache") == []


def test_skip_may_not_empty_a_part_of_a_set_without_labels(tmp_path: Path) -> None:
    folder = make(tmp_path / "data")
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="^all images of train, val, test are unreadable: repair"):
        build(folder, on_corrupt="skip", labels=False)


def test_truncated_counts_as_unreadable_even_if_pillow_was_told_to_pass_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    damage(make(tmp_path / "data"))
    with pytest.raises(DataError, match="3 unreadable images"):
        build(tmp_path / "data")
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_pillows_warnings_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(tmp_path / "data")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)  # 64 are a warning, 121 an error
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        build(folder)
    assert leaked == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(DataError, match="20 unreadable images: .*more pixels than Pillow's limit"):
        build(folder, size=9)


def test_an_error_of_the_disk_comes_through_and_nothing_is_left(tmp_path: Path) -> None:
    source, config = setup(make(tmp_path / "data"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))  # the images have 3,840 bytes
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            cache.build(source, config, "f", tmp_path / "cache")
        assert caught.value.filename == str(tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_in(tmp_path / "cache") == []


def test_too_little_space_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config = setup(make(tmp_path / "data"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(DataError, match=r"has 0.0 GB free, the images need .* smaller `size`"):
        cache.build(source, config, "f", tmp_path / "cache")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images.npy", b"short", r"images.npy has 5 bytes, must have \d+"),
        ("labels.npy", None, "No such file or directory"),
        ("meta.json", b"{", "damaged"),
        ("meta.json", b"[]", "damaged"),
        ("meta.json", b'{"fingerprint": "other", "format": 2}', "another data set's"),
    ],
)
def test_a_damaged_cache_is_refused_and_built_again(
    tmp_path: Path, file: str, content: bytes | None, message: str
) -> None:
    folder = make(tmp_path / "data")
    path = tmp_path / "cache" / build(folder).fingerprint
    (path / file).unlink() if content is None else (path / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{message}.*: build it again"):
        open_table(path)
    assert len(build(folder).images) == 20


@pytest.mark.parametrize(
    ("key", "value"),
    [("classes", "cats"), ("size", "8"), ("parts", []), ("colours", [[1]]), ("bytes", {"a": None})],
)
def test_a_description_of_wrong_types_is_damaged(tmp_path: Path, key: str, value: object) -> None:
    folder = make(tmp_path / "data")
    path = tmp_path / "cache" / build(folder).fingerprint / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(DataError, match=rf"damaged \(meta.json: {key}.*: build it again"):
        open_table(path.parent)
    assert len(build(folder).images) == 20


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "part_train.npy"])
def test_one_bit_that_changed_is_named_and_the_cache_is_built_again(
    tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = build(folder := make(tmp_path / "data"))
    path = tmp_path / "cache" / table.fingerprint
    before = table.images.copy()
    wanted = (path / file).read_bytes()
    spoil(path / file, "one bit")
    assert (path / file).read_bytes() != wanted
    assert np.array_equal(build(folder).images, before)
    assert (path / file).read_bytes() == wanted
    assert f"damaged ({file} is not as it was written)" in caplog.text


def test_a_cache_that_stayed_as_it_was_is_read_whole_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_hashes, "_SETTLED_NS", -(10**18))  # a new file is old enough
    table = build(folder := make(tmp_path / "data"))
    path = tmp_path / "cache" / table.fingerprint
    read: list[Path] = []
    monkeypatch.setattr(cache, "changed", lambda where: read.append(where))
    build(folder)
    assert read == [path]  # what was just written is read once
    build(folder)
    assert read == [path]
    monkeypatch.undo()
    wanted = (path / "images.npy").read_bytes()
    stat = (path / "images.npy").stat()
    spoil(path / "images.npy", "one bit")
    os.utime(path / "images.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    build(folder)
    assert (path / "images.npy").read_bytes() == wanted
    assert "damaged (images.npy is not as it was written)" in caplog.text


@pytest.mark.parametrize("how", ["just written", "of another build", "memory damaged"])
def test_what_is_not_known_to_be_whole_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    table = build(folder := make(tmp_path / "data"))
    path = tmp_path / "cache" / table.fingerprint
    if how != "just written":
        monkeypatch.setattr(file_hashes, "_SETTLED_NS", -(10**18))
        build(folder)
        assert (path / "verified.json").is_file()
    if how == "of another build":
        copy = (path / "meta.json").read_bytes()
        (path / "meta.json").unlink()
        (path / "meta.json").write_bytes(copy)
    elif how == "memory damaged":
        (path / "verified.json").write_text("[[1, 2")
    read: list[Path] = []
    monkeypatch.setattr(cache, "changed", lambda where: read.append(where))
    build(folder)
    assert read == [path]


def test_an_absent_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no decoded images here: build it again"):
        open_table(tmp_path / "0123456789abcdef")


def report_and_dawdle(log: Path, done: int, count: int) -> None:
    with log.open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    time.sleep(1.0)


def report_and_hang(log: Path, done: int, count: int) -> None:
    log.write_text(str(done))
    time.sleep(600)


def build_as_f(folder: Path, log: Path, progress: Any, barrier: Any) -> None:
    source, config = setup(folder)
    barrier.wait(300)  # a child imports torch first, which takes long on a busy machine
    path = cache.build(source, config, "f", folder.parent / "cache", partial(progress, log))
    assert len(open_table(path).images) == 20


def test_of_two_builders_at_once_one_works_and_both_find_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    args = (make(tmp_path / "data"), log, report_and_dawdle, SPAWN.Barrier(2))
    child = SPAWN.Process(target=build_as_f, args=args, daemon=True)
    child.start()
    build_as_f(*args)
    child.join(300)
    assert child.exitcode == 0
    assert len(log.read_text().split()) == 1
    assert left_in(tmp_path / "cache") == ["f"]


def test_what_a_killed_builder_left_is_no_cache_and_is_cleared_away(tmp_path: Path) -> None:
    folder, log = make(tmp_path / "data"), tmp_path / "log"
    args = (folder, log, report_and_hang, SPAWN.Barrier(1))
    child = SPAWN.Process(target=build_as_f, args=args, daemon=True)
    child.start()
    deadline = time.monotonic() + 300
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill()
    child.join(60)
    assert left_in(tmp_path / "cache") == ["f.tmp"]
    source, config = setup(folder)
    path = cache.build(source, config, "f", tmp_path / "cache")
    assert len(open_table(path).images) == 20 and left_in(tmp_path / "cache") == ["f"]


# --- masks ---------------------------------------------------------------------------------------

ROOF, GRASS, NOTHING = (255, 0, 0), (0, 255, 0), (0, 0, 0)


def make_pairs(folder: Path, count: int = 8, side: int = 6) -> Path:
    """NNNN_sat.png and NNNN_mask.png; roofs left, grass right, a row that does not count."""
    folder.mkdir()
    (folder / "classes.csv").write_text(
        "name,r,g,b,ignored\nroof,255,0,0,0\ngrass,0,255,0,0\nx,0,0,0,1\n"
    )
    for i in range(count):
        pixels = np.full((side, side, 3), i, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:04}_sat.png")
        mask = np.zeros((side, side, 3), dtype=np.uint8)
        mask[1:, :3], mask[1:, 3:] = ROOF, GRASS
        Image.fromarray(mask).save(folder / f"{i:04}_mask.png")
    return folder


def pairs(folder: Path, **settings: Any) -> tuple[Source, DatasetConfig]:
    config = DatasetConfig(type="deepglobe", path=str(folder), size=8, **settings)
    return read(config, None), config


def pair_print(folder: Path) -> str:
    return cache.fingerprint(*pairs(folder), folder.parent / "manifest.json")


def build_pairs(folder: Path, **settings: Any) -> ImageTable:
    source, config = pairs(folder, **settings)
    return open_table(cache.build(source, config, pair_print(folder), folder.parent / "cache"))


def test_a_table_holds_a_class_for_every_pixel(tmp_path: Path) -> None:
    table = build_pairs(make_pairs(tmp_path / "data"))
    assert table.classes == ("roof", "grass")
    assert table.masks is not None and table.masks.shape == (8, 8, 8)
    for image, mask in zip(table.images, table.masks, strict=True):
        assert len(np.unique(image[:, :6, :6])) == 1 and not image[:, 6:].any()
        assert (mask[1:6, :3] == 0).all() and (mask[1:6, 3:6] == 1).all()
        assert (mask[0] == 255).all() and (mask[6:] == 255).all() and (mask[:, 6:] == 255).all()
    assert {part: len(rows) for part, rows in table.parts.items()} == {
        "train": 5, "val": 1, "test": 2,
    }  # fmt: skip


def test_masks_and_what_their_colours_mean_are_in_the_fingerprint(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "data")
    prints = [pair_print(folder)]
    table = (folder / "classes.csv").read_text()
    (folder / "classes.csv").write_text(table.replace("x,0,0,0,1", "shade,0,0,0,0"))
    prints.append(pair_print(folder))
    (folder / "classes.csv").write_text(table)
    mask = np.asarray(Image.open(folder / "0003_mask.png")).copy()
    mask[2, 2] = GRASS
    Image.fromarray(mask).save(folder / "0003_mask.png")
    prints.append(pair_print(folder))
    assert len(set(prints)) == 3


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((6, 7, 3), ROOF), r"0002_sat.png \(image has 6x6 px, its mask 7x6\)"),
        (np.zeros((6, 6, 3)), r"0002_sat.png \(mask has no pixel that counts: remove the pair\)"),
        (
            np.full((6, 6, 3), (9, 9, 250)),
            r"36 pixels of colour \(0, 0, 255\), which the class table lacks",
        ),
    ],
)
def test_a_mask_with_a_fault_is_named_before_anything_is_trained(
    tmp_path: Path, mask: np.ndarray, message: str
) -> None:
    folder = make_pairs(tmp_path / "data")
    Image.fromarray(mask.astype(np.uint8)).save(folder / "0002_mask.png")
    with pytest.raises(DataError, match=message):
        build_pairs(folder)
    table = build_pairs(folder, on_corrupt="skip")
    assert sum(len(rows) for rows in table.parts.values()) == 7


def test_a_larger_pair_lies_in_windows_and_no_pixel_is_lost(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "data", side=10)
    noise = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "0001_sat.png")
    Image.new("RGB", (5, 7)).save(folder / "0003_sat.png")
    Image.new("RGB", (5, 7), GRASS).save(folder / "0003_mask.png")
    source, _ = pairs(folder)
    table = build_pairs(folder)
    assert table.windows is not None and table.masks is not None
    assert sorted(table.windows[:, 0].tolist()) == table.windows[:, 0].tolist()
    shown = np.concatenate(list(table.parts.values()))
    assert sorted(shown.tolist()) == list(range(len(table.images)))  # no row is in two parts
    for part, rows in table.parts.items():
        images = table.of_images(rows)
        assert [int(table.windows[each[0], 0]) for each in images] == source.parts[part].tolist()
    for index, name in enumerate(source.names):
        rows = np.flatnonzero(table.windows[:, 0] == index)
        small = name.startswith("0003")
        assert len(rows) == (1 if small else 4)
        assert {table.names[row] for row in rows} == {name}
        assert source.masks is not None
        image, ids = np.asarray(source.decode(index)), source.masks.decode(index)
        for row, (top, left) in zip(rows, table.places(rows) or (), strict=True):
            part = image[top : top + 8, left : left + 8].transpose(2, 0, 1)
            assert np.array_equal(table.images[row][:, : part.shape[1], : part.shape[2]], part)
            mask = table.masks[row]
            assert np.array_equal(mask[: part.shape[1], : part.shape[2]],
                                  ids[top : top + 8, left : left + 8])  # fmt: skip


def test_without_labels_the_masks_are_forgotten(tmp_path: Path) -> None:
    source, _ = pairs(make_pairs(tmp_path / "data"), labels=False)
    assert (source.classes, source.masks) == ((), None)


def test_colours_of_a_table_are_rounded_as_the_built_in_ones(tmp_path: Path) -> None:
    folder = make_pairs(tmp_path / "data")
    mask = np.full((6, 6, 3), (250, 3, 9), dtype=np.uint8)
    mask[:, 3:] = (12, 130, 0)
    Image.fromarray(mask).save(folder / "0000_mask.png")
    table = build_pairs(folder)
    assert table.masks is not None
    row = table.names.index("0000_sat.png")
    assert (table.masks[row][:6, :3] == 0).all() and (table.masks[row][:6, 3:6] == 1).all()
    # other colours would fall together
    (folder / "classes.csv").write_text("name,r,g,b\nroof,255,0,0\ngrass,200,0,0\n")
    with pytest.raises(DataError, match=r"lacks: .*\(250, 3, 9\): 18 pixels"):
        cache.load_table(
            DatasetConfig(type="deepglobe", path=str(folder), size=8), tmp_path / "other"
        )


def test_bands_and_limits_decide_the_pixels_and_are_in_the_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for start, name in enumerate("ab"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8, 4), (start * 6 + number, 20, 30, 40), dtype=np.uint8)
            path = folder / name / f"{number}.tif"
            tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig")

    def table(**settings: Any) -> ImageTable:
        config = DatasetConfig(type="image_folder", path=str(folder), size=8, **settings)
        return cache.load_table(config, tmp_path / "cache")

    with pytest.raises(DataError, match="uint8 TIFF with 4 bands: set `bands`"):
        table()
    shown = table(bands=[4, 3, 2])
    scaled = table(bands=[4, 3, 2], limits=[0, 100])
    assert (shown.images == np.array([40, 30, 20]).reshape(1, 3, 1, 1)).all()
    assert (scaled.images == np.array([102, 76, 51]).reshape(1, 3, 1, 1)).all()
    assert shown.fingerprint != scaled.fingerprint
