"""Files and folders are whole or not there, and locks are given back by the kernel."""

import fcntl
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired

import pytest
from typing_extensions import TypedDict

from orchestrator.storage.files import (
    Busy,
    keep_once,
    lock_file,
    locked,
    read_json,
    replace_folder,
    replacing,
    sync_folder,
    temporary_folder,
    write_json,
)

REPOSITORY = Path(__file__).parents[3]


def test_json_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, 2.5, None]}


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    for value in ({"first": 1}, {"second": 2}):
        write_json(tmp_path / "a.json", value, mode)
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": 1, "bad": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


WRITE_HALF = """
import sys, time
from pathlib import Path
from orchestrator.storage.files import write_json

class Slow(list):
    def __iter__(self):
        yield "x" * 1_000_000
        print("half", flush=True)
        time.sleep(600)

write_json(Path(sys.argv[1]), {"new": Slow([1])})
"""


def test_a_writer_that_is_killed_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    command = [sys.executable, "-c", WRITE_HALF, str(path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert (line, process.returncode) == (b"half\n", -9)
    assert read_json(path) == {"old": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\x00\x00", b"\xff\xfe"])
def test_a_damaged_file_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json") is None


HOLD = """
import sys, time
from pathlib import Path
from orchestrator.storage.files import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(lock: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds a lock until its standard input ends."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=REPOSITORY, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def is_free(lock: Path) -> bool:
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_lock_keeps_another_process_out_until_it_is_left(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process_holds(lock) as process:
        assert not is_free(lock)
        process.communicate()
        assert process.returncode == 0
        assert is_free(lock)


def test_a_lock_is_given_back_when_its_holder_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with another_process_holds(lock) as process:
        process.kill()
        with locked(lock):  # waits until the kernel has given it back
            assert not is_free(lock)
    assert is_free(lock)


def test_a_lock_is_given_back_when_its_block_fails(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with pytest.raises(RuntimeError, match="in the block"), locked(lock):
        raise RuntimeError("in the block")
    assert is_free(lock)


def test_a_block_that_fails_replaces_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path, 3) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "final"
    final.mkdir()
    (final / "old").touch()
    (tmp_path / ".final.1").mkdir()
    (tmp_path / ".final.1" / "left by a killed writer").touch()
    with pytest.raises(RuntimeError), temporary_folder(final, 1) as folder:
        assert os.listdir(folder) == []
        raise RuntimeError
    assert os.listdir(final) == ["old"]
    with temporary_folder(final, 1) as folder:
        (folder / "new").touch()
        replace_folder(folder, final)
    assert os.listdir(final) == ["new"]
    assert os.listdir(tmp_path) == ["final"]


def test_a_lock_is_shared_with_those_who_share_it_alone(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with locked(lock, shared=True), locked(lock, shared=True, wait=False):
        with pytest.raises(Busy):
            lock_file(lock, wait=False)
    with lock_file(lock, wait=False), pytest.raises(Busy):
        lock_file(lock, shared=True, wait=False, mode="r")
    with pytest.raises(FileNotFoundError):
        lock_file(tmp_path / "none", wait=False, mode="r")
    assert not (tmp_path / "none").exists()


class _Shape(TypedDict):
    number: int
    names: NotRequired[list[str]]


@pytest.mark.parametrize(
    "text", ["", "null", "3", "[]", "{}", '{"number": "1"}', '{"number": 1, "names": "ab"}',
             '{"number": true}', "[" * 100_000, '{"number": 1, "names": [null]}', "\xff"]
)  # fmt: skip
def test_json_of_another_shape_is_damaged_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin-1"))
    assert [read_json(path, _Shape) for _ in range(3)] == [None] * 3
    assert [
        record.getMessage().startswith(f"{path} is damaged (") for record in caplog.records
    ] == [True]


def test_json_of_the_shape_may_have_more_keys(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"number": 1, "more": [2]}', "utf-8")
    assert read_json(tmp_path / "x", _Shape) == {"number": 1, "more": [2]}
    assert read_json(tmp_path, _Shape) is None  # a folder


def test_a_pipe_or_a_folder_in_place_of_a_file_is_damaged_and_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "device.json").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        assert read_json(tmp_path / f"{name}.json") is None
    assert [record.getMessage().partition(" is damaged ")[2] for record in caplog.records] == [
        "(it is a pipe, not a file)",
        "(it is a folder)",
        "(it is a device, not a file)",
    ]


def test_a_file_that_is_renamed_while_its_folder_is_synced_ends_nothing(tmp_path: Path) -> None:
    """A checkpoint is written by one thread while another one reports progress beside it."""
    over = threading.Event()

    def report() -> None:
        while not over.is_set():
            with replacing(tmp_path / "progress.json", 1) as temporary:
                temporary.write_text("{}", encoding="utf-8")

    thread = threading.Thread(target=report)
    thread.start()
    try:
        for _ in range(300):
            sync_folder(tmp_path)
    finally:
        over.set()
        thread.join()
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]


def test_equal_files_are_kept_once_and_each_name_is_its_own(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"same")
    other.write_bytes(b"same")
    assert keep_once(one, other) and one.samefile(other) and keep_once(one, other)
    one.unlink()
    assert other.read_bytes() == b"same"
    assert not keep_once(one, other) and not one.exists()
    one.write_bytes(b"else")
    assert not keep_once(one, other) and one.read_bytes() == b"else"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
