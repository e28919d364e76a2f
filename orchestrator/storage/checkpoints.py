"""Checkpoints of a Run: verified when read, the best one stored twice while the Run trains.

epoch_00012/{weights.pt, training.pt, manifest.json}   after epoch 12
spare_00009/{weights.pt, manifest.json}                the backup copy of the best one

Both lie in the Run's folder (see `run_records`). The backup copy costs a second file where a single
damaged one would cost more than an epoch: the best epoch cannot be trained again from a later one.
A finished Run keeps the weights of its best and of its last epoch. It keeps the backup copy where
it has trained for long (`BACKED_UP_SECONDS`): a shorter one is trained again if a file is damaged.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.storage.files import sync_folder
from orchestrator.storage.manifest import (
    MANIFEST,
    HashedFile,
    describe,
    has_its_files,
    read_manifest,
    times_of,
    write_manifest,
)

log = logging.getLogger(__name__)
WEIGHTS, TRAINING = "weights.pt", "training.pt"
FOLDERS = "[es]*_*"  # glob: checkpoints and backup copies
BACKED_UP_SECONDS = 600.0  # a finished Run that trained for less keeps no backup copy
# writes one file to a path; may return what `describe` says of it, else the file is read again
Write = Callable[[Path], object]
_EPOCH = re.compile(r"epoch_(\d{5,})")


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose files have the sizes and sha256 that its manifest names."""

    path: Path
    epoch: int
    info: Mapping[str, Any]  # JSON that its writer adds, such as the history
    files: Mapping[str, Mapping[str, Any]]  # name → bytes and sha256

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS

    @property
    def training(self) -> Path:
        """Return the optimizer's state, where the checkpoint still has it."""
        return self.path / TRAINING


def folder_of(run: Path, epoch: int) -> Path:
    """Return where the checkpoint after an epoch lies. run: the Run's folder."""
    return run / f"epoch_{epoch:05d}"


def backup_of(run: Path, epoch: int) -> Path:
    """Return where the backup copy of a checkpoint lies. Named `spare`, as older homes have it."""
    return run / f"spare_{epoch:05d}"


def epochs_in(run: Path) -> list[int]:
    """Return the epochs that have a checkpoint folder, verified or not, ascending."""
    names = os.listdir(run) if run.is_dir() else []
    return sorted(int(match[1]) for name in names if (match := _EPOCH.fullmatch(name)))


def read_checkpoint(run: Path, epoch: int) -> Checkpoint | None:
    """Return the checkpoint of an epoch if every file verifies, else its backup copy; None where
    that is missing or damaged too. A warning names the damaged file."""
    checkpoint = _verified(folder_of(run, epoch))
    if checkpoint is None and backup_of(run, epoch).is_dir():
        checkpoint = _verified(backup_of(run, epoch))
        if checkpoint is not None:
            log.warning("checkpoint %s: the backup copy is used", checkpoint.path)
    return checkpoint


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """Return the newest checkpoint that verifies and still has its training state."""
    for epoch in reversed(epochs_in(run)):
        checkpoint = read_checkpoint(run, epoch)
        if checkpoint is not None and TRAINING in checkpoint.files:
            return checkpoint
    return None


def seems_whole(run: Path, epoch: int) -> bool:
    """Return whether the checkpoint of an epoch or its backup copy has all its files with their
    sizes."""
    return any(has_its_files(place(run, epoch)) for place in (folder_of, backup_of))


def write_checkpoint(
    folder: Path, epoch: int, attempt: int, files: Mapping[str, Write], info: Mapping[str, Any]
) -> Mapping[str, Mapping[str, Any]]:
    """Write a checkpoint into an empty folder, the manifest last, and sync it. Returns `files` of
    its manifest."""
    sums = {}
    for name, write in files.items():
        said = write(folder / name)
        sums[name] = said if isinstance(said, dict) else describe(folder / name)
    manifest = {"epoch": epoch, "attempt": attempt, "files": sums, "info": dict(info)}
    write_manifest(folder, manifest | {"written": times_of(folder, sums)})
    sync_folder(folder)
    return sums


def copies_of(source: Checkpoint) -> dict[str, Write]:
    """Return what writes a copy of each file but the optimizer's state."""
    return {name: partial(_copy, source.path / name) for name in source.files if name != TRAINING}


def _copy(source: Path, path: Path) -> dict[str, Any]:
    with source.open("rb") as original, path.open("wb") as file:
        hashed = HashedFile(file)
        shutil.copyfileobj(original, hashed, 1 << 20)
    return hashed.describe()


def keep_newest(run: Path, best: int, keep: int) -> None:
    """Keep the newest `keep` checkpoints whole and the weights of the best one; remove the rest,
    and what killed writers have left."""
    for left in run.glob(f".{FOLDERS}.*"):
        shutil.rmtree(left, ignore_errors=True)  # its writer may still be at it
    for epoch in epochs_in(run)[:-keep]:
        path = folder_of(run, epoch)
        if epoch == best:
            _drop_training_state(path)
        else:
            shutil.rmtree(path)


def keep_weights(run: Path, best: int, backup: bool) -> None:
    """Keep the weights of the best epoch and of the newest one; remove the rest. backup: whether
    the backup copy stays, as it does where the best checkpoint is damaged."""
    keep_newest(run, best, 1)
    for epoch in epochs_in(run):
        _drop_training_state(folder_of(run, epoch))
    if not backup and _verified(folder_of(run, best)) is not None:
        for copy in run.glob("spare_*"):
            shutil.rmtree(copy)


def _drop_training_state(path: Path) -> None:
    """Remove the optimizer's state of a checkpoint: from the manifest first, so that it verifies at
    any time."""
    manifest = read_manifest(path)
    if manifest and TRAINING in manifest["files"]:
        del manifest["files"][TRAINING]
        manifest.get("written", {}).pop(TRAINING, None)
        write_manifest(path, manifest)
        (path / TRAINING).unlink(missing_ok=True)


def _verified(path: Path) -> Checkpoint | None:
    manifest = read_manifest(path)
    if manifest is None:
        log.warning("checkpoint %s: %s is missing or damaged", path, MANIFEST)
        return None
    for name, expected in manifest["files"].items():
        if not (path / name).is_file() or describe(path / name) != expected:
            log.warning("checkpoint %s: %s is missing or damaged", path, name)
            return None
    return Checkpoint(path, manifest["epoch"], manifest["info"], manifest["files"])
