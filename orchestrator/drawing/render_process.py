"""Draw t-SNE, masks and diagrams of Runs in a process of its own, from what the Runs recorded."""

import json
import os
import select
import subprocess
import tempfile
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import IO

import trainables
from orchestrator.warm.switch import module_command
from trainables.record_files import MAPS


class RenderProcess:
    """Runs one process of `orchestrator.drawing.render`, which draws one folder after another.

    It starts with the first folder, and again when it has died; `close` ends it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None  # its standard error
        self._asked: deque[Path] = deque()
        self._read = b""  # answers that are not taken yet
        self.errors: dict[Path, str] = {}  # folder → why it could not be drawn

    def has_drawn(self, folder: Path) -> bool:
        """Tell whether a folder's figures are drawn, or failed (see `errors`). Otherwise they are
        asked for, once."""
        self._collect(wait=False)
        if (folder / MAPS).is_dir() or folder in self.errors:
            return True
        if folder not in self._asked:
            self._ask(folder)
        return False

    def wait(self) -> None:
        """Wait for the next folder that is drawn, if any was asked for."""
        if self._asked:
            self._collect(wait=True)

    def close(self) -> None:
        """End the process, whatever it still has to draw."""
        if self._process is not None and self._messages is not None:
            if self._asked:
                self._process.terminate()
            self._process.communicate()
            self._messages.close()
        self._process, self._read = None, b""
        self._asked.clear()

    def _ask(self, folder: Path) -> None:
        if self._process is None:
            self._messages = tempfile.TemporaryFile()  # noqa: SIM115 (it stays open)
            self._process = _start(self._messages)
        self._asked.append(folder)
        with suppress(BrokenPipeError):  # it has died; `_collect` finds out why
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(str(folder)).encode() + b"\n")
                self._process.stdin.flush()

    def _collect(self, wait: bool) -> None:
        """Take the answers that are there. wait: for one at least."""
        while self._asked and self._process is not None:
            line = self._next_line(self._process, wait)
            if line is None:
                return
            if not line:
                assert self._messages is not None
                self._bury(self._process, self._messages)
                return
            folder, error = self._asked.popleft(), json.loads(line)
            if error:
                self.errors[folder] = str(error)[:500]
            wait = False

    def _next_line(self, process: subprocess.Popen[bytes], wait: bool) -> bytes | None:
        """Return the next answer; empty when the process has ended, None when there is none yet."""
        assert process.stdout is not None
        while b"\n" not in self._read:
            if not wait and not select.select([process.stdout], [], [], 0)[0]:
                return None
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                return b""
            self._read += part
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _bury(self, process: subprocess.Popen[bytes], messages: IO[bytes]) -> None:
        """Note why the process died over the first folder, and ask another for the rest."""
        messages.seek(0)
        lines = messages.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        first, *rest = self._asked
        self._asked.clear()  # so that `close` ends nothing that lives
        self.close()
        self.errors[first] = said[-1][:500] if said else f"exit {process.returncode}"
        for folder in rest:
            self._ask(folder)


def _start(messages: IO[bytes]) -> "subprocess.Popen[bytes]":
    """messages: gets the process's standard error."""
    root = str(Path(trainables.__file__).parents[1])  # the very code that this process runs
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        module_command("orchestrator.drawing.render"),
        env=os.environ | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=messages,
    )
