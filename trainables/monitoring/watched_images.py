"""Looks at a few images while a Run trains: the masks that a segmentation predicts of those that
are watched, and the views of training images that a training without labels compares."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.data.watched import watched_rows
from trainables.dataset import Indices
from trainables.layouts.mask_pairs import pair_name
from trainables.loading.image_table import ImageTable
from trainables.numerics.precision import Autocast
from trainables.pixels.bands import preview
from trainables.trainable import Batch, Trainable
from trainables.transforms.geometry import normalize, unstandardize

_VIEWED = 8  # training images whose views are shown


def watched_in_table(table: ImageTable, wanted: Sequence[str]) -> Indices:
    """Return the `watched_rows` of a table; of an image in windows the middle one."""
    held_out = np.concatenate([table.parts["val"], table.parts["test"]])
    if table.windows is None:
        return watched_rows(table.names, table.parts["val"], wanted, held_out.tolist())
    images = table.of_images(np.arange(len(table.images)))
    names = [table.names[rows[0]] for rows in images]
    validation, others = (
        np.unique(table.windows[rows, 0]) for rows in (table.parts["val"], held_out)
    )
    watched = watched_rows(names, validation, wanted, others.tolist())
    return np.array([images[image][len(images[image]) // 2] for image in watched], dtype=np.int64)


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


@torch.inference_mode()
def training_views(
    trainable: Trainable, table: ImageTable, epoch: int, device: torch.device
) -> dict[str, np.ndarray[Any, Any]]:
    """Return the first training images as an epoch would show them to a model of two inputs. They
    are augmented as in training, with draws of seed 0.

    Returns `images` (N, S, S, 3), `one` and `two` (N, V, V, 3), uint8 RGB.
    """
    rows = np.sort(table.parts["train"])[:_VIEWED]
    pixels = torch.from_numpy(np.array(table.images[rows])).to(device)
    indices = torch.from_numpy(rows.astype(np.int64)).to(device)
    shown: list[Tensor] = []

    def model(*views: Tensor) -> Tensor:
        """Take the place of the model, and keep what it is given."""
        shown.extend(views)
        return torch.zeros(len(rows), device=device)

    batch = Batch(pixels, torch.zeros_like(indices), indices, 0, epoch)
    trainable.loss(model, batch)  # type: ignore[arg-type]
    one, two = (_as_pictures(view) for view in shown)
    return {"images": _shown(table.images[rows].transpose(0, 2, 3, 1)), "one": one, "two": two}


def _as_pictures(view: Tensor) -> np.ndarray[Any, Any]:
    """Return normalized images (N, C, V, V) as (N, V, V, 3) uint8 RGB."""
    if view.shape[1] != 3:
        return _shown(view.float().cpu().numpy().transpose(0, 2, 3, 1))
    pixels = (unstandardize(view.float()) * 255).round().clamp(0, 255).to(torch.uint8)
    return np.asarray(pixels.permute(0, 2, 3, 1).cpu().numpy())
