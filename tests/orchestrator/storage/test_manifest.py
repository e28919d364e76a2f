"""A folder is whole if its manifest is as it was written and every file is there with its size."""

import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from orchestrator.storage.manifest import (
    MANIFEST,
    HashedFile,
    describe,
    has_its_files,
    read_manifest,
    times_of,
    verified_file,
    write_manifest,
)
from orchestrator.storage.run_records import Store
from orchestrator.storage.tensors import save_arrays
from tests.conftest import damage
from trainables.record_files import PREDICTIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sealed, with two files."""
    (tmp_path / "a").write_bytes(b"1234")
    (tmp_path / "b").write_bytes(b"")
    files = {name: describe(tmp_path / name) for name in "ab"}
    write_manifest(tmp_path, {"epoch": 3, "files": files})
    return tmp_path


def test_a_manifest_says_what_was_written(folder: Path):
    manifest = read_manifest(folder)
    assert manifest is not None and manifest["epoch"] == 3
    assert manifest["files"]["a"]["bytes"] == 4
    assert manifest["files"]["b"]["sha256"].startswith("e3b0c44298fc1c14")  # of nothing
    assert has_its_files(folder)


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty", "one bit"])
def test_a_damaged_manifest_is_none(folder: Path, how: str):
    damage(folder / MANIFEST, how)
    assert read_manifest(folder) is None
    assert not has_its_files(folder)


def test_a_manifest_that_was_changed_is_none(folder: Path):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"epoch": 4}))
    assert read_manifest(folder) is None


@pytest.mark.parametrize("how", ["missing", "cut", "empty"])
def test_a_file_that_is_gone_or_shorter_is_seen_at_a_glance(folder: Path, how: str):
    damage(folder / "a", how)
    assert read_manifest(folder) is not None
    assert not has_its_files(folder)


@pytest.mark.parametrize("how", ["missing", "cut", "zeroed", "empty", "one bit"])
def test_a_file_that_was_written_over_is_seen_at_a_glance(folder: Path, how: str):
    manifest = read_manifest(folder)
    assert manifest is not None
    write_manifest(folder, manifest | {"written": times_of(folder, "ab")})
    assert has_its_files(folder)
    os.utime(folder / "a")  # as in a copy of the home: the content counts
    assert has_its_files(folder)
    damage(folder / "a", how)
    assert not has_its_files(folder)


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path):
    with (tmp_path / "a").open("wb") as file:
        hashed = HashedFile(file)
        assert [hashed.write(part) for part in (b"12", b"", memoryview(b"34"))] == [2, 0, 2]
    assert hashed.describe() == describe(tmp_path / "a")


def test_predictions_are_verified_by_their_manifest(tmp_path: Path) -> None:
    """They are rewritten by a later attempt, and not used once a byte of them has changed."""
    run = Store(tmp_path).run("key")
    for _ in range(2):
        attempt = run.begin_attempt()
        arrays = {"predicted": np.arange(3) + attempt}
        run.writer(attempt).put_optional(PREDICTIONS, partial(save_arrays, arrays))
        file = verified_file(run.path / PREDICTIONS)
        assert file is not None
        with np.load(file) as read:
            assert np.array_equal(read["predicted"], arrays["predicted"])
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert verified_file(file) is None
    file.unlink()
    assert verified_file(file) is None
