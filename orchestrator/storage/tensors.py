"""Tensors and arrays of a Run on the disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch


def save(value: Mapping[str, Any], path: Path) -> None:
    """Through a Python file: given a path, torch hides that the disk is full."""
    with path.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:  # of its clean-up, which fails as well
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def load(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU; nothing in it is executed."""
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found


def save_arrays(arrays: Mapping[str, Any], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
