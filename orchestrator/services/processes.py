"""Start, find and end processes that outlive the command that started them.

A process is known by its id and start time, its descendants by a mark in their environment, which
stays when the processes between have ended.
"""

import os
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

MARK = "ORCHESTRATOR_SERVICE"
_GRACE_SECONDS = 8.0


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
