"""Finds the images that are watched while a segmentation trains, and predicts their masks."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from trainables.dataset import DataError, Indices, near
from trainables.layouts.mask_pairs import pair_name
from trainables.loading.image_table import ImageTable
from trainables.numerics.precision import Autocast
from trainables.pixels.bands import preview
from trainables.trainable import Trainable
from trainables.transforms.geometry import normalize

_FIRST = 3  # validation images that are watched where a study names none


def watched_rows(
    names: Sequence[str], validation: Indices, wanted: Sequence[str], held_out: Sequence[int] = ()
) -> Indices:
    """Return the rows of the `wanted` images; without names the first three of validation.

    names: of all images of the data set; wanted: such as 0013, or with folders where two images
    have that name: validation/0013; held_out: rows that are preferred where a name fits several.
    Raises DataError for a name that no image or several images have.
    """
    if not wanted:
        return validation[:_FIRST]
    known: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        for short in _short_names(name):
            known.setdefault(short, []).append(row)
    preferred = set(held_out)
    rows = []
    for name in wanted:
        if name not in known:
            hint = near(name, known).partition("there are: ")[0].strip()
            raise DataError(f"there is no image {name!r} to watch{f' ({hint})' if hint else ''}")
        matches = known[name]
        if len(matches) > 1:
            matches = [row for row in matches if row in preferred] or matches
        if len(matches) > 1:
            choices = ", ".join(_short_names(names[row])[-1] for row in matches)
            raise DataError(f"image {name!r} to watch may be {choices}: name one of them")
        rows.append(matches[0])
    return np.array(rows, dtype=np.int64)


def watched_in_table(table: ImageTable, wanted: Sequence[str]) -> Indices:
    """Return the `watched_rows` of a table."""
    held_out = np.concatenate([table.parts["val"], table.parts["test"]])
    return watched_rows(table.names, table.parts["val"], wanted, held_out.tolist())


def _short_names(name: str) -> list[str]:
    """Return 0013, validation/0013, ... of data/validation/0013_sat.jpg."""
    folders = PurePosixPath(name).parent.parts
    ends = [pair_name(name)]
    for folder in reversed(folders):
        ends.append(f"{folder}/{ends[-1]}")
    return ends


def _shown(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return images (N, S, S, C) as uint8 RGB: of other channels the first three."""
    if images.dtype == np.uint8:
        return images
    return np.stack([preview(image) for image in images])


@torch.inference_mode()
def watched_masks(
    trainable: Trainable,
    table: ImageTable,
    rows: Indices,
    device: torch.device,
    autocast: Autocast,
) -> dict[str, np.ndarray[Any, Any]]:
    """Predict the masks of some images.

    Returns `images` (N, S, S, 3) uint8 RGB, `truth` and `predicted` (N, S, S) uint8 class ids,
    `names` (N,) and `classes` (K,) text, `colours` (K, 3) uint8 RGB of the classes, or (0, 3).
    Raises ValueError for a table without masks.
    """
    if table.masks is None:
        raise ValueError("the data set has no masks to watch")
    trainable.set_training(False)
    predicted = []
    for row in rows:
        pixels = torch.from_numpy(np.array(table.images[row : row + 1])).to(device)
        with autocast():
            logits = trainable.model(normalize(pixels))["out"]
        predicted.append(logits[0].argmax(0).to(torch.uint8).cpu().numpy())
    return {
        "images": _shown(table.images[rows].transpose(0, 2, 3, 1)),
        "truth": table.masks[rows],
        "predicted": np.stack(predicted),
        "names": np.array([pair_name(table.names[row]) for row in rows], dtype=str),
        "classes": np.array(table.classes, dtype=str),
        "colours": np.array(table.colours, dtype=np.uint8).reshape(-1, 3),
    }
