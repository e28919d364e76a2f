"""What a Run keeps to be drawn, features and masks, and the process that draws it."""

import os
import subprocess
import sys
from pathlib import Path

import trainables

FEATURES, MAPS = "features", "maps"  # a folder in a Run's, and the pictures' folder therein
CONFUSION = f"{FEATURES}/confusion.npz"  # the test's confusion matrix
ARCHITECTURE = f"{FEATURES}/architecture.npz"  # what the model is made of
LAST_MASKS = "last.npz"  # among the pictures of masks: what the last ones are drawn from


def feature_file(epoch: int) -> str:
    """Where the features of an epoch lie in a Run's folder."""
    return f"{FEATURES}/epoch_{epoch:05d}.npz"


def mask_file(epoch: int) -> str:
    """Where the masks of watched images lie."""
    return f"{FEATURES}/masks_{epoch:05d}.npz"


def kept_features(folder: Path) -> dict[int, Path]:
    """epoch → file, ascending."""
    return _by_epoch(folder, "epoch")


def kept_masks(folder: Path) -> dict[int, Path]:
    """epoch → file, ascending."""
    return _by_epoch(folder, "masks")


def _by_epoch(folder: Path, kind: str) -> dict[int, Path]:
    found = sorted(folder.glob(f"{kind}_*.npz"))
    return {int(path.stem.partition("_")[2]): path for path in found}


class Artist:
    """Runs `maps` for one folder after another, each in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None
        self.faults: dict[Path, str] = {}  # folder → why there is no picture

    def has_drawn(self, folder: Path) -> bool:
        """Whether nothing more is to be waited for: the pictures are there, or there are none, and
        `faults` says why. Begins with this folder when it is its turn."""
        self._look()
        if (folder / MAPS).is_dir() or folder in self.faults:
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
                self.faults[self._folder] = last[:500] or f"exit {self._process.returncode}"
            self._process = None


def _start(folder: Path) -> "subprocess.Popen[str]":
    here = str(Path(trainables.__file__).parents[1])  # the tree that this process runs
    paths = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator.maps", str(folder)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
