"""Images that are watched while a segmentation is learnt: which, and what is made of them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from trainables.data.class_folders import near
from trainables.data.mask_pairs import stem
from trainables.dataset import DataError, Indices
from trainables.loading.image_table import ImageTable
from trainables.trainable import Trainable
from trainables.transforms.geometry import normalise

_FIRST = 3  # of the validation images, where a study names none


def watched_rows(
    names: Sequence[str], validation: Indices, wanted: Sequence[str], held_out: Sequence[int] = ()
) -> Indices:
    """Rows of the images called `wanted`; the first three of validation without any.

    names: of all images of the data set. An image is called 0013, or with its folders where two are
    called the same: validation/0013; held_out: rows that are meant where only one of the two is
    among them. Raises DataError for a name that none or two images have.
    """
    if not wanted:
        return validation[:_FIRST]
    known: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        for short in _short_names(name):
            known.setdefault(short, []).append(row)
    kept = set(held_out)
    rows = []
    for name in wanted:
        if name not in known:
            hint = near(name, known).partition("there are: ")[0].strip()
            raise DataError(f"there is no image {name!r} to watch{f' ({hint})' if hint else ''}")
        found = known[name]
        if len(found) > 1:
            found = [row for row in found if row in kept] or found
        if len(found) > 1:
            both = ", ".join(_short_names(names[row])[-1] for row in found)
            raise DataError(f"image {name!r} to watch may be {both}: say which")
        rows.append(found[0])
    return np.array(rows, dtype=np.int64)


def watched_of(table: ImageTable, wanted: Sequence[str]) -> Indices:
    """`watched_rows` of a table."""
    held_out = np.concatenate([table.parts["val"], table.parts["test"]])
    return watched_rows(table.names, table.parts["val"], wanted, held_out.tolist())


def _short_names(name: str) -> list[str]:
    """0013, validation/0013, ... of data/validation/0013_sat.jpg; each once."""
    folders = PurePosixPath(name).parent.parts
    ends = [stem(name)]
    for folder in reversed(folders):
        ends.append(f"{folder}/{ends[-1]}")
    return ends


@torch.inference_mode()
def watched_masks(
    trainable: Trainable,
    table: ImageTable,
    rows: Indices,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> dict[str, np.ndarray[Any, Any]]:
    """`images` (N, S, S, 3), `truth` and `predicted` (N, S, S) uint8 class ids, `names` (N,) and
    `classes` (K,) text, `colours` (K, 3) uint8 of the classes, or none."""
    assert table.masks is not None
    trainable.set_training(False)
    predicted = []
    for row in rows:
        pixels = torch.from_numpy(table.images[row : row + 1]).to(device)
        with autocast():
            logits = trainable.model(normalise(pixels))["out"]
        predicted.append(logits[0].argmax(0).to(torch.uint8).cpu().numpy())
    return {
        "images": table.images[rows].transpose(0, 2, 3, 1),
        "truth": table.masks[rows],
        "predicted": np.stack(predicted),
        "names": np.array([stem(table.names[row]) for row in rows], dtype=str),
        "classes": np.array(table.classes, dtype=str),
        "colours": np.array(table.colours, dtype=np.uint8).reshape(-1, 3),
    }
