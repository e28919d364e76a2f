"""Start, find and end processes that outlive the command that started them, and find free ports.

A process is known by its id and start time, its descendants by a mark in their environment, which
stays when the processes between have ended.
"""

import itertools
import os
import random
import re
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

import psutil
from typing_extensions import TypedDict

MARK = "ORCHESTRATOR_SERVICE"
_GRACE_SECONDS = 8.0
_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST_PORT, _DRAWN = 15_000, 50
_NO_MEMORY = re.compile(r"low on memory|out.?of.?memory|\bOOM\b|memory usage threshold", re.I)
# what Ray says of each death, whatever its cause: "(1) the process was killed by the OOM killer"
_GUESSES = re.compile(r"Some common causes include:[^\n]*")
# of Ray 2.60's message
_MEMORY_USED = re.compile(r"was ([\d.]+) ?GB used / ([\d.]+) ?GB limit")


class Identity(TypedDict):
    """Names a process as `identity` writes it."""

    pid: int
    created: float


class Entry(TypedDict):
    """Describes a service in services.json: where it answers, and its processes."""

    processes: list[Identity]
    address: NotRequired[str]  # of Ray
    dashboard_url: NotRequired[str]
    uri: NotRequired[str]  # of MLflow
    port: NotRequired[int]
    agent_port: NotRequired[int]  # of Ray's agent, which starts jobs


class Record(TypedDict):
    """Describes what services.json holds."""

    ray: NotRequired[Entry]
    mlflow: NotRequired[Entry]


def tells_of_memory(message: str) -> bool:
    """Return whether a message of Ray says that its memory monitor has killed a process. What Ray
    lists as common causes of a death says nothing of this one."""
    return _NO_MEMORY.search(_GUESSES.sub("", message)) is not None


def memory_in_words(message: str, length: int = 500) -> str:
    """Return how full a node was when Ray's memory monitor killed a process, from its message; or
    the message itself, cut, where it does not tell."""
    found = _MEMORY_USED.search(message)
    if found is None:
        return " ".join(message.split())[:length]
    return f"{found[1]} of {found[2]} GB of its node were used"


class Outliving(subprocess.Popen[bytes]):
    """Starts a process that lives on when its object is dropped. Python warns of others."""

    def __del__(self) -> None:
        """Leave the process alone."""


def spawn(
    command: Sequence[str], log: Path, mark: str, extra: Mapping[str, str], folder: str = "/"
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C here does not reach it. folder: the
    one that it works in.

    It inherits this environment without the settings of Ray and MLflow, which are the caller's own.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    with log.open("ab") as output:
        return Outliving(
            command,
            env={**kept, **extra, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=folder,
        )


def free_ports(count: int) -> list[int]:
    """Return different ports that no process listens on now.

    They lie below those that the system gives to outgoing connections, where it can: one of these
    could take a port before the service that it is meant for.
    """
    possible = range(_FIRST_PORT, _first_outgoing_port())
    drawn = random.SystemRandom().sample(possible, min(len(possible), _DRAWN * count))
    found = list(itertools.islice(filter(is_free, drawn), count))
    return found if len(found) == count else _ports_of_the_system(count)


def _first_outgoing_port() -> int:
    try:
        return int(_OUTGOING.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):  # not Linux
        return 0


def _ports_of_the_system(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def is_free(port: int) -> bool:
    """Return whether a process could listen on a port now."""
    with socket.socket() as item:
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            item.bind(("", port))
        except OSError:
            return False
        return True


def identity(process: psutil.Process) -> dict[str, Any]:
    """Return the process id and the start time, which are unique together: the system uses an id
    again."""
    return {"pid": process.pid, "created": process.create_time()}


def alive(item: Mapping[str, Any]) -> psutil.Process | None:
    """Return the process of an identity; None when it has ended."""
    try:
        process = psutil.Process(int(item["pid"]))
        same = abs(process.create_time() - item["created"]) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def marked(mark: str) -> list[psutil.Process]:
    """Return every living process that `spawn` started with this mark, or that descends from
    one."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark:
                processes.append(process)
        except (psutil.Error, OSError):  # it has ended, or is another user's
            continue
    return processes


def end(processes: Iterable[psutil.Process]) -> None:
    """End processes and their descendants: SIGTERM, and SIGKILL to those that live 8 s later."""
    every = {p.pid: p for parent in processes for p in [parent, *tree(parent.pid)]}
    for process in every.values():
        _signal(process.terminate)
    _, left = psutil.wait_procs(list(every.values()), timeout=_GRACE_SECONDS)
    for process in left:
        _signal(process.kill)
    psutil.wait_procs(left, timeout=5)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
