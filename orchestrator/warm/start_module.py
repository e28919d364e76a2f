"""Start a module as `python -m` does: fork it from the node's template, or start it plainly where
that fails. A job's driver and the process that draws plots are started so.

python -P start_module.py MODULE ARGUMENT ...   (instead of `python -m MODULE ARGUMENT ...`)

Ray watches this process, and ends it with its process group, which a forked process is not in. So a
third process, the *keeper*, is the parent of the forked one. It kills the forked one when this
process has ended, and tells this process how the forked one has ended.
"""

import ctypes
import os
import select
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from orchestrator.warm.request import FORK_SECONDS, SOCKET, SWITCH, Request, close
from orchestrator.warm.start_worker import fork
from orchestrator.warm.worker import name_process

_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def main(arguments: list[str]) -> NoReturn:
    """Become the module, or stand for it and end as it ends. arguments: module, its arguments."""
    path = os.environ.get(SOCKET)
    if path is None or os.environ.get(SWITCH) == "0":
        _start_plainly(arguments)
    try:
        with socket.socket(socket.AF_UNIX) as template:
            request = Request.of_this_process(arguments, module=True)
            status = _stand_for(template, fork(template, path, request))
    except (OSError, ValueError) as error:
        print(f"started plainly, not from the template: {error}", file=sys.stderr, flush=True)
        _start_plainly(arguments)
    _end_as(status)


def _start_plainly(arguments: list[str]) -> NoReturn:
    os.execv(sys.executable, [sys.executable, "-m", *arguments])


def _stand_for(template: socket.socket, pid: int) -> int:
    """Wait until the forked process has ended; pass signals on to it. Returns its exit status,
    negative: minus the signal that has ended it."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        os.kill(pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    template.settimeout(None)
    said = b""
    try:
        while part := template.recv(64):
            said += part
    except OSError as error:
        print(f"the keeper: {error}", file=sys.stderr, flush=True)
    return int(said) if said else -signal.SIGKILL  # a keeper that is killed takes it along


def _end_as(status: int) -> NoReturn:
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


# --- in a process that was forked from the template ---------------------------------------------


def keep(asking: socket.socket, files: list[int]) -> socket.socket:
    """Fork once more and return in the new process, with a socket in place of `asking`. The process
    that has called becomes the keeper, which never returns.

    asking: the connection to the process that stands for the new one. files: its standard files.
    """
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    keeper, kept = os.getpid(), os.fork()
    if kept == 0:
        ours.close()
        asking.close()
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != keeper:  # it has ended already
            os._exit(1)
        return theirs
    theirs.close()
    close(files)
    name_process(f"keeper of process {kept}")
    try:
        _introduce(ours, asking)
        _wait(kept, asking)
    except OSError:
        os.kill(kept, signal.SIGKILL)
    os._exit(0)


def _introduce(kept: socket.socket, asking: socket.socket) -> None:
    """Pass the kept process's id to the one that asks, and the answer back."""
    for connection in (kept, asking):
        connection.settimeout(FORK_SECONDS)
    asking.sendall(kept.recv(64))
    kept.sendall(asking.recv(1))


def _wait(kept: int, asking: socket.socket) -> None:
    """Wait for the end of the kept process, which is told, or of the one that stands for it: then
    the kept one is killed."""
    ended = os.pidfd_open(kept)
    asking.settimeout(None)
    readable, _, _ = select.select([ended, asking.fileno()], [], [])
    if asking.fileno() in readable:  # nothing is ever sent: this is its end
        os.kill(kept, signal.SIGKILL)
    _, status = os.waitpid(kept, 0)
    asking.sendall(str(os.waitstatus_to_exitcode(status)).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
