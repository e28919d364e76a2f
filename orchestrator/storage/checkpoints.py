"""Checkpoints of a Run: verified when read, the best one stored twice.

epoch_00012/{weights.pt, training.pt, manifest.json}   after epoch 12
spare_00009/{weights.pt, manifest.json}                the backup copy of the best one

Both lie in the Run's folder (see `run_records`). The backup copy costs a second file where a single
damaged one would cost more than an epoch: the best epoch cannot be trained again from a later one.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage.manifest import (
    MANIFEST,
    describe,
    has_its_files,
    read_manifest,
    write_manifest,
)

log = logging.getLogger(__name__)
WEIGHTS, TRAINING = "weights.pt", "training.pt"
FOLDERS = "[es]*_*"  # glob: checkpoints and backup copies
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


def seems_whole(run: Path, epoch: int) -> bool:
    """Return whether the checkpoint of an epoch or its backup copy has all its files with their
    sizes."""
    return any(has_its_files(place(run, epoch)) for place in (folder_of, backup_of))


def drop_training_state(path: Path) -> None:
    """Remove the optimizer's state of a checkpoint: from the manifest first, so that it verifies at
    any time."""
    manifest = read_manifest(path)
    if manifest and TRAINING in manifest["files"]:
        del manifest["files"][TRAINING]
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
