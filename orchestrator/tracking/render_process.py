"""Draw a Run's t-SNE, masks and diagram in a process of its own, from what the Run recorded."""

import os
import subprocess
import sys
from pathlib import Path

import trainables
from trainables.monitoring.record_files import MAPS


class RenderProcess:
    """Runs `orchestrator.reporting.render` for one folder after another, one process at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self.errors: dict[Path, str] = {}  # folder → why it could not be drawn

    def has_drawn(self, folder: Path) -> bool:
        """Tell whether a folder's figures are drawn, or failed (see `errors`). Starts to draw them
        when no other folder is being drawn."""
        self._collect()
        if (folder / MAPS).is_dir() or folder in self.errors:
            return True
        if self._process is None:
            self._folder, self._process = folder, _start(folder)
        return False

    def wait(self) -> None:
        """Wait until the process that draws now, if any, has ended."""
        if self._process is not None:
            self._process.wait()
            self._collect()

    def _collect(self) -> None:
        """Take the outcome of a process that has ended."""
        if self._process is not None and self._process.poll() is not None:
            output = self._process.communicate()[1].strip()
            if self._process.returncode and self._folder is not None:
                last_line = output.rpartition("\n")[2]
                self.errors[self._folder] = last_line[:500] or f"exit {self._process.returncode}"
            self._process = None


def _start(folder: Path) -> "subprocess.Popen[str]":
    root = str(Path(trainables.__file__).parents[1])  # the very code that this process runs
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.reporting.render", str(folder)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
