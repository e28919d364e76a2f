"""Looks at what an encoder has learnt so far: features of a split, their neighbours and spread."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.batches import BatchStream, evaluation_steps
from trainables.embeddings import collapsed, knn_accuracy, spread
from trainables.randomness import permutation
from trainables.splits import Indices
from trainables.table import ImageTable
from trainables.trainable import Trainable
from trainables.world import World

_BATCH = 512
_BANK, _QUERIES, _SPREAD = 5_000, 10_000, 2_000  # images at most

Autocast = Callable[[], AbstractContextManager[Any]]


def probe(
    trainable: Trainable, table: ImageTable, world: World, autocast: Autocast
) -> dict[str, float]:
    """PROBES of the validation images (at most 10,000), neighbours among training images (at most
    5,000); without labels the spread alone. Every rank takes part and gets the same."""
    rows = sample(table.parts["val"], _QUERIES)
    queries = features(trainable, table, rows, world, autocast)
    std, rank = spread(queries[:: -(-len(queries) // _SPREAD)])
    found = {"val/embedding_std": std, "val/effective_rank": rank}
    if table.classes:
        known = sample(table.parts["train"], _BANK)
        bank = features(trainable, table, known, world, autocast)
        labels = (torch.from_numpy(table.labels[each]) for each in (rows, known))
        found["val/knn_accuracy"] = knn_accuracy(queries, next(labels), bank, next(labels))
    return world.from_first(found)  # type: ignore[no-any-return]


def snapshot(
    trainable: Trainable, table: ImageTable, world: World, autocast: Autocast
) -> dict[str, np.ndarray]:
    """What a map of the validation images (at most 10,000) is drawn from: `features` (N, D)
    float32, `labels` and `rows` (N,) int64, `classes` (K,) text. Every rank takes part."""
    rows = sample(table.parts["val"], _QUERIES)
    found = features(trainable, table, rows, world, autocast).numpy()
    classes = np.array(table.classes, dtype=str)
    return {"features": found, "labels": table.labels[rows], "rows": rows, "classes": classes}


def has_collapsed(figures: Mapping[str, float], width: int) -> bool:
    """Whether a probe's figures say so. width: D of the features."""
    std, rank = figures["val/embedding_std"], figures["val/effective_rank"]
    return collapsed(std, rank, width)


def sample(rows: Indices, most: int) -> Indices:
    """All of the rows, or `most` of them, always the same, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(rows[permutation(len(rows), "sample").numpy()[:most]])


def features(
    trainable: Trainable, table: ImageTable, rows: Indices, world: World, autocast: Autocast
) -> Tensor:
    """(len(rows), D) float32 on the CPU of every rank, in the order of `rows`."""
    trainable.set_training(False)
    steps = evaluation_steps(np.arange(len(rows)), _BATCH)
    mine = [world.share(step) for step in steps]
    found: list[Tensor] = []
    for images, _, _ in BatchStream(table, [rows[step] for step in mine], world.device):
        with autocast():
            found.append(trainable.features(images).float().cpu())
    places = world.gather((np.concatenate(mine), torch.cat(found)))
    result = torch.empty(len(rows), places[0][1].shape[1])
    for where, values in places:
        result[torch.from_numpy(where)] = values
    return result
