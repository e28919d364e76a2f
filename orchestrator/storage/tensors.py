"""Write and read tensors and arrays of a Run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orchestrator.storage.manifest import HashedFile


def save(value: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Write a state dict. Through a Python file: given a path, torch hides that a disk is full.
    Returns size and sha256 of the file, as `manifest.describe` does."""
    with path.open("wb") as file:
        hashed = HashedFile(file)
        try:
            torch.save(value, hashed)  # type: ignore[arg-type]  # it calls `write` and `flush` alone
        except RuntimeError as error:  # raised by torch's clean-up, which fails as well
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise
    return hashed.describe()


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, onto the CPU. No code in the file is executed."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    """Write arrays as one `.npz` file."""
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
