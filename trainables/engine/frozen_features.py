"""Computes what a frozen encoder says of every image once, so that a head is trained on features.

The features are kept in a file, by a key of all that decides them, and verified when read.
"""

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainables.dataset import Indices
from trainables.loading.image_table import ImageTable
from trainables.numerics.distributed import World
from trainables.trainable import Trainable
from trainables.transforms.geometry import normalize

log = logging.getLogger(__name__)
Features = npt.NDArray[np.float32]
Compute = Callable[[Indices], Tensor]


@dataclass(frozen=True)
class FeatureTable(ImageTable):
    """A decoded data set whose `images` are features, (N, D) float32; 0 where an image is in no
    part. image_channels: of the images that they were computed from."""

    image_channels: int = 3

    @property
    def channels(self) -> int:
        return self.image_channels


def with_features(
    trainable: Trainable,
    table: ImageTable,
    world: World,
    compute: Compute,
    folder: Path | None,
    numerics: str,
) -> FeatureTable:
    """Return the table with features in place of images. Every rank takes part.

    compute: returns the features of images by their numbers, those of evaluation: without
    augmentation and with BatchNorm's own statistics; folder: where features are kept for other Runs
    with the same ones, None: nowhere; numerics: the precision and what else decides rounding.
    """
    rows = np.sort(np.concatenate(list(table.parts.values())))
    file = folder / f"{_key(trainable, table, numerics)}.npy" if folder else None
    kept = _read(file, len(rows)) if file and world.rank == 0 else None
    found: Features | None = world.broadcast(kept)
    if found is None:
        found = compute(rows).numpy()
        if file and world.rank == 0:
            _write(file, found)
    everything = np.zeros((len(table.labels), found.shape[1]), np.float32)
    everything[rows] = found
    same = {field.name: getattr(table, field.name) for field in fields(ImageTable)}
    return FeatureTable(**{**same, "images": everything}, image_channels=table.channels)


def _key(trainable: Trainable, table: ImageTable, numerics: str) -> str:
    """Return 20 hexadecimal digits over data, encoder and transform."""
    shown = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    digest = hashlib.sha256(f"{table.fingerprint}\0{table.size}\0{numerics}".encode())
    digest.update(normalize(shown).numpy().tobytes())
    digest.update(str(trainable.model.encoder).encode())
    for name, value in trainable.model.encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]


def _read(file: Path, count: int) -> Features | None:
    """Return kept features; None where there are none, or where the file is damaged, which is
    said."""
    try:
        content = file.read_bytes()
        wanted = json.loads(_note(file).read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if hashlib.sha256(content).hexdigest() != wanted:
        log.warning("%s is damaged: the features are computed again", file)
        return None
    found: Any = np.load(io.BytesIO(content), allow_pickle=False)
    if found.dtype != np.float32 or found.ndim != 2 or len(found) != count:
        log.warning("%s holds %s of %s: computed again", file, found.shape, found.dtype)
        return None
    log.info("%d features are read from %s", len(found), file)
    return np.asarray(found)


def _write(file: Path, found: Features) -> None:
    """Keep features, whole or not at all. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, found)
    content = buffer.getvalue()
    note = json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode()
    for path, written in ((file, content), (_note(file), note)):
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(written)
        os.replace(unfinished, path)


def _note(file: Path) -> Path:
    return file.with_suffix(".json")
