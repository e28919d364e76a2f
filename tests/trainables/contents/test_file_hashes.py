"""Files are hashed once, and again when they changed or when the memory of them is damaged."""

import hashlib
import os
from pathlib import Path

import pytest

from trainables.contents.file_hashes import file_hashes
from trainables.dataset import DataError

OLD = 1_600_000_000  # a modification time long past, in s


def write(path: Path, content: bytes, mtime: int = OLD) -> Path:
    path.write_bytes(content)
    os.utime(path, (mtime, mtime))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_hashes_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(200)]
    expected = [sha256(b"%d" % i) for i in range(200)]
    assert file_hashes(files, tmp_path / "new" / "manifest") == expected


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"first")
    file_hashes([file], tmp_path / "manifest")
    write(file, b"other")  # of the same size, the same mtime: only reading it would show it
    assert file_hashes([file], tmp_path / "manifest") == [sha256(b"first")]


@pytest.mark.parametrize(("content", "mtime"), [(b"other", OLD + 1), (b"longer", OLD)])
def test_a_file_of_another_time_or_size_is_read_again(
    tmp_path: Path, content: bytes, mtime: int
) -> None:
    file = write(tmp_path / "a", b"first")
    file_hashes([file], tmp_path / "manifest")
    write(file, content, mtime)
    assert file_hashes([file], tmp_path / "manifest") == [sha256(content)]


def test_a_file_just_written_is_not_trusted_yet(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"first")
    now = file.stat().st_mtime_ns
    file_hashes([file], tmp_path / "manifest")
    file.write_bytes(b"other")
    os.utime(file, ns=(now, now))
    assert file_hashes([file], tmp_path / "manifest") == [sha256(b"other")]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_manifest_is_made_anew(tmp_path: Path, damage: str) -> None:
    file, manifest = write(tmp_path / "a", b"first"), tmp_path / "manifest"
    file_hashes([file], manifest)
    whole = manifest.read_bytes()
    digit = whole.index(sha256(b"first").encode())
    flipped = whole[:digit] + b"zz" + whole[digit + 2 :]
    manifest.write_bytes({"cut": whole[:-9], "flipped": flipped, "empty": b""}[damage])
    assert file_hashes([file], manifest) == [sha256(b"first")]
    assert manifest.read_bytes() == whole
    assert sorted(os.listdir(tmp_path)) == ["a", "manifest"]


def test_files_of_another_call_stay_known(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1", b"one"), write(tmp_path / "2", b"two")
    file_hashes([one], tmp_path / "manifest")
    file_hashes([two], tmp_path / "manifest")
    write(one, b"eno")
    assert file_hashes([one], tmp_path / "manifest") == [sha256(b"one")]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot read .*/broken.jpg \(No such file or directory\)"):
        file_hashes([tmp_path / "broken.jpg"], tmp_path / "manifest")


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_progress_rises_to_the_number_of_files(tmp_path: Path, count: int) -> None:
    files, said = [write(tmp_path / f"{i}", b"%d" % i) for i in range(count)], []
    file_hashes(files, tmp_path / "manifest", lambda done, total: said.append((done, total)))
    assert [total for _, total in said] == [count] * len(said)
    done = [number for number, _ in said]
    assert done == sorted(set(done)) and done[-1] == count


def test_few_files_are_shared_out_over_many_threads(tmp_path: Path) -> None:
    """Each of them may be large."""
    said: list[int] = []
    files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(8)]
    file_hashes(files, tmp_path / "manifest", lambda done, total: said.append(done))
    assert said == list(range(1, 9))
