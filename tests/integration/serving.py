"""Serve a registered model as its description in MLflow says, and send it a picture."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from orchestrator.services.ports import free_ports
from tests.integration.command import wait_for

_PORT = "5001"  # in descriptions


@contextmanager
def served(description: str, log: Path) -> Iterator[str]:
    """Run the command of a description, on loopback and a free port. Yields the Python code of the
    description, which asks that port. log: gets what the server says."""
    indented = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", description, re.MULTILINE)
    command, code = (textwrap.dedent(part).strip() for part in indented)
    port = str(free_ports(1)[0])
    assert command.endswith(f"--port {_PORT}") and _PORT in code
    settings, words = {}, shlex.split(command.replace(_PORT, port))
    while "=" in words[0]:
        name, _, settings[name] = words.pop(0).partition("=")
    words[0] = str(Path(sys.executable).with_name(words[0]))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("w") as out:
        process = subprocess.Popen(
            [*words, "--host", "127.0.0.1"], stdout=out, stderr=out, cwd=log.parent,
            env=os.environ | settings | {"PATH": path}, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(lambda: _answers(port) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield code.replace(_PORT, port)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _answers(port: str) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/ping", timeout=60).ok
    except requests.ConnectionError:
        return False


def ask(code: str, folder: Path) -> list[Any]:
    """Run the Python code of a description in a folder with `new.jpg`. Returns the predictions."""
    written = code.replace("print(", "import json; print(json.dumps(").strip() + ")"
    command = [sys.executable, "-c", written]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))
