"""Only regular files are opened: a pipe, a socket or a device may never end."""

import os
import socket
from pathlib import Path

import pytest

import trainables.files
from trainables.files import NotAFile, only_files, read_whole


def test_a_regular_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert read_whole(tmp_path / "a") == read_whole(tmp_path / "b") == b"abc"
    with open(tmp_path / "a", encoding="utf-8", opener=only_files) as file:
        assert file.read() == "abc"


def test_a_pipe_a_socket_and_a_device_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        (tmp_path / "zero").symlink_to("/dev/zero")
        for name, kind in (("pipe", "a pipe"), ("socket", "a socket"), ("zero", "a device")):
            with pytest.raises(NotAFile) as error:
                read_whole(tmp_path / name)
            assert error.value.strerror == f"{kind}, not a file"
            assert error.value.filename == str(tmp_path / name)


def test_a_file_that_grows_without_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(NotAFile, match="larger than 4 GiB"):
        read_whole(tmp_path / "sparse")
    monkeypatch.setattr(trainables.files, "MOST_BYTES", 100)
    with pytest.raises(NotAFile):  # its size is 0 before it is read
        read_whole(Path("/proc/self/status"))


def test_what_is_missing_is_said_by_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none")
