"""A request travels whole, with the open files that belong to it."""

import os
import socket
import struct
from pathlib import Path

import pytest

from orchestrator.warm.request import MOST_BYTES, Request, close, listen, receive, send

ONE = Request(["default_worker.py", "--a=b c"], {"NAME": "ä\n"}, "/tmp", 0o27, [2, 15])


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX)


def test_requests_that_wait_in_a_row_keep_their_own_files(tmp_path: Path) -> None:
    ours, theirs = pair()
    with ours, theirs:
        for name in "ab":
            with (tmp_path / name).open("w") as file:
                many = {"LONG": name * 20_000}
                send(ours, Request([name], many, "/", 0, []).encoded(), [file.fileno()])
        for name in "ab":
            request, (file_number,) = receive(theirs, 1)
            assert (request.argv, request.environment) == ([name], {"LONG": name * 20_000})
            os.write(file_number, b"mine")
            close([file_number])
            assert (tmp_path / name).read_text() == "mine"


def test_a_request_is_read_as_it_was_written() -> None:
    ours, theirs = pair()
    with ours, theirs:
        send(ours, ONE.encoded(), [0])
        request, files = receive(theirs, 1)
        close(files)
        assert request == ONE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        struct.pack("!I", 100) + b"{}",
        struct.pack("!I", MOST_BYTES + 1),
        struct.pack("!I", 2) + b"{}",
        struct.pack("!I", 2) + b"\xff\xff",
        struct.pack("!I", 4) + b"null",
    ],
)
def test_what_is_no_request_is_refused_and_its_files_are_closed(content: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(ours, [content], [0]) if content else None
        ours.shutdown(socket.SHUT_WR)
        with pytest.raises(OSError):
            receive(theirs, 1)
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(tmp_path: Path) -> None:
    path = Path("/tmp") / f"warm-{os.getpid()}"
    with listen(path) as listening:
        assert path.stat().st_mode & 0o077 == 0
        path.chmod(0o777)
        pid = os.fork()
        if pid == 0:
            try:
                os.setuid(65534)
                client = socket.socket(socket.AF_UNIX)
                client.connect(str(path))
                send(client, ONE.encoded(), [0])
                client.recv(1)
            finally:
                os._exit(0)
        connection, _ = listening.accept()
        with connection, pytest.raises(PermissionError, match="user 65534"):
            receive(connection, 1)
        os.waitpid(pid, 0)
    path.unlink()


def test_the_job_of_a_request_is_that_of_its_cluster() -> None:
    def request(**environment: str) -> Request:
        return Request([], environment, "/", 0, [])

    assert request().job is None and request(RAY_JOB_ID="").job is None
    assert request(RAY_JOB_ID="01", RAY_RAYLET_PID="7").job == ("01", "7")
