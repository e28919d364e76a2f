"""What a Run keeps to be drawn, features and masks, and the process that draws it."""

import os
import subprocess
import sys
from pathlib import Path

import trainables
from trainables.monitoring.record_files import MAPS


class RenderProcess:
    """Runs `maps` for one folder after another, each in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self.errors: dict[Path, str] = {}  # folder → why there is no picture

    def has_drawn(self, folder: Path) -> bool:
        """Whether nothing more is to be waited for: the pictures are there, or there are none, and
        `errors` says why. Begins with this folder when it is its turn."""
        self._look()
        if (folder / MAPS).is_dir() or folder in self.errors:
            return True
        if self._process is None:
            self._folder, self._process = folder, _start(folder)
        return False

    def wait(self) -> None:
        """Until the process that draws now, if any, has ended."""
        if self._process is not None:
            self._process.wait()
            self._look()

    def _look(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            said = self._process.communicate()[1].strip()
            if self._process.returncode and self._folder is not None:
                last = said.rpartition("\n")[2]
                self.errors[self._folder] = last[:500] or f"exit {self._process.returncode}"
            self._process = None


def _start(folder: Path) -> "subprocess.Popen[str]":
    here = str(Path(trainables.__file__).parents[1])  # the tree that this process runs
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.reporting.render", str(folder)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
