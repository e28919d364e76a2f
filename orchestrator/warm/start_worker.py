"""Start a worker of Ray: fork it from the node's template, or start it plainly where that fails.

Ray runs this file in place of its own set-up script, with the same arguments.
"""

import json
import os
import re
import shlex
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

_SCRIPT = Path(__file__).resolve()
sys.path[0] = str(_SCRIPT.parents[2])  # not this folder: its files would hide other modules

from orchestrator.warm.request import (  # noqa: E402 (the path comes first)
    FORK_SECONDS,
    GO,
    HEARD,
    HEARD_SECONDS,
    RAY_SETUP,
    SOCKET,
    WANTED,
    Request,
    send,
)

_CONTEXT = "--serialized-runtime-env-context="
_LANGUAGE = "--language="


def main(arguments: list[str]) -> None:
    """Become the worker, or stand for it until the forked one has ended."""
    folder, environment = environment_of(arguments)
    path = os.environ.get(SOCKET)
    if path is None or environment is None or environment.get(WANTED) != "1":
        start_plainly(arguments)
    passed = [item for item in arguments if not item.startswith((_CONTEXT, _LANGUAGE))]
    before, here = dict(os.environ), os.getcwd()
    try:
        if folder is not None:
            os.chdir(folder)
        os.environ.update(expanded(environment))
        with socket.socket(socket.AF_UNIX) as template:
            stand_for(template, fork(template, path, Request.of_this_process(passed)))
    except (OSError, ValueError) as error:
        print(f"started plainly, not from the template: {error}", file=sys.stderr, flush=True)
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
        start_plainly(arguments)


def environment_of(arguments: list[str]) -> tuple[str | None, dict[str, str] | None]:
    """Return the folder that the worker's runtime environment begins in (None: this one), and its
    variables. None as variables: it asks for more, which only Ray's own script can do."""
    given = {item.partition("=")[0] + "=": item.partition("=")[2] for item in arguments}
    context = json.loads(given.get(_CONTEXT) or "{}")
    prefix = context.get("command_prefix") or []
    plain = (
        given.get(_LANGUAGE) == "PYTHON"
        and context.get("py_executable") in (None, "", sys.executable)
        and not context.get("override_worker_entrypoint")
        and (not prefix or (len(prefix) == 3 and prefix[0] == "cd" and prefix[2] == "&&"))
    )
    if not plain:
        return None, None
    return (shlex.split(prefix[1])[0] if prefix else None), dict(context.get("env_vars") or {})


def expanded(variables: dict[str, str]) -> dict[str, str]:
    """Put in what variables refer to, as Ray does: `${X}` is X's value, or nothing."""
    return {
        name: re.sub(r"\$\{[A-Z0-9_]+\}", "", os.path.expandvars(value))
        for name, value in variables.items()
    }


def start_plainly(arguments: list[str]) -> NoReturn:
    """Become Ray's own set-up script."""
    os.execv(sys.executable, [sys.executable, os.environ[RAY_SETUP], *arguments])


def fork(template: socket.socket, path: str, request: Request) -> int:
    """Have the worker forked. Returns its process id. Raises OSError or ValueError where the
    template is away, does not answer in time or refuses."""
    template.settimeout(HEARD_SECONDS)
    template.connect(path)
    send(template, request.encoded(), [0, 1, 2])
    if template.recv(1) != HEARD:
        raise ConnectionError("the template has refused")
    template.settimeout(FORK_SECONDS)
    if not (answer := template.recv(64)):
        raise ConnectionError("the template does not fork it")
    pid = int(answer)
    template.sendall(GO)  # a worker that hears nothing ends: there are never two
    return pid


def stand_for(template: socket.socket, pid: int) -> None:
    """Wait until the worker has ended; pass signals on to it."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        os.kill(pid, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    template.settimeout(None)
    try:
        while template.recv(64):
            pass
    except OSError:  # the worker was killed
        return


if __name__ == "__main__":
    main(sys.argv[1:])
