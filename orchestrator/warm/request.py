"""Send and receive the request that a starting process makes of the template, over a Unix socket.

Standard library only: every worker of the cluster loads this file before anything else.
"""

import json
import os
import signal
import socket
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

SOCKET = "ORCHESTRATOR_WARM_SOCKET"  # environment of a node: the socket of its template
WANTED = "ORCHESTRATOR_WARM"  # environment of a job: its workers may be forked
SWITCH = "ORCHESTRATOR_WARM_WORKERS"  # "0": workers and drivers start plainly
RAY_SETUP = "ORCHESTRATOR_WARM_RAY_SETUP"  # environment of a node: Ray's own set-up script

HEARD, GO = b".", b"g"  # the template has the request; the worker may begin
HEARD_SECONDS = 20.0
FORK_SECONDS = 40.0  # a job's first worker waits while the job's template loads
REGISTER_SECONDS = 180  # that Ray waits for a worker: enough for both, and a plain start then
MOST_BYTES = 1 << 22

Job = tuple[str, str]
MODULES: Job = ("modules", "")  # no job's id

_LENGTH = struct.Struct("!I")
_PEER = struct.Struct("3i")  # process, user and group id


@dataclass(frozen=True)
class Request:
    """Describes a process to start, as Ray or a job has asked for it. Its standard files travel
    beside it."""

    argv: list[str]  # Ray's worker script, or a module, and the arguments
    environment: dict[str, str]
    folder: str
    umask: int
    blocked: list[int]  # signals
    module: bool = False  # it is no worker

    @property
    def job(self) -> Job | None:
        """Return the job and the node's raylet: `MODULES` for a module, None for a worker of no
        job."""
        if self.module:
            return MODULES
        job = self.environment.get("RAY_JOB_ID")
        return (job, self.environment.get("RAY_RAYLET_PID", "")) if job else None

    @staticmethod
    def of_this_process(argv: list[str], module: bool = False) -> "Request":
        umask = os.umask(0o077)
        os.umask(umask)
        blocked = [int(item) for item in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        return Request(argv, dict(os.environ), os.getcwd(), umask, blocked, module)

    def encoded(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def send(connection: socket.socket, content: bytes, files: list[int]) -> None:
    """Send a request and open files. Raises OSError."""
    message = _LENGTH.pack(len(content)) + content
    sent = socket.send_fds(connection, [message], files)
    connection.sendall(message[sent:])


def receive(connection: socket.socket, files: int) -> tuple[Request, list[int]]:
    """Return a request and the files that came with it; the caller closes them.

    files: how many are expected. Raises OSError where the request is cut, too long, or not from a
    process of this user.
    """
    _, user, _ = _PEER.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    )
    if user != os.getuid():
        raise PermissionError(f"user {user} may not start workers")
    # no byte more than the request has: the next one's files come with its first byte
    head, opened, _, _ = socket.recv_fds(connection, _LENGTH.size, files)
    try:
        (length,) = _LENGTH.unpack(head + _exactly(connection, _LENGTH.size - len(head)))
        if length > MOST_BYTES:
            raise ConnectionError(f"the request has {length} bytes")
        if len(opened) != files:
            raise ConnectionError(f"{len(opened)} open files came, not {files}")
        return Request(**json.loads(_exactly(connection, length))), opened
    except (OSError, ValueError, TypeError) as error:
        close(opened)
        raise ConnectionError(f"no request: {error}") from error


def _exactly(connection: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        part = connection.recv(count - len(content))
        if not part:
            raise ConnectionError("it was cut")
        content += part
    return content


def close(files: list[int]) -> None:
    for file in files:
        os.close(file)


def listen(path: Path) -> socket.socket:
    """Return a socket at a path, which only this user can reach."""
    path.unlink(missing_ok=True)
    umask = os.umask(0o077)
    try:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
    finally:
        os.umask(umask)
    listening.listen(128)
    return listening
