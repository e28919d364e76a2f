"""Measure what an encoder has learned so far: features of a split, their neighbours and spread."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.dataset import Indices
from trainables.loading.batches import BatchStream, evaluation_steps
from trainables.loading.image_table import ImageTable
from trainables.monitoring.feature_quality import collapsed, knn_accuracy, spread
from trainables.numerics.distributed import World
from trainables.numerics.randomness import permutation
from trainables.trainable import Trainable

_BANK, _QUERIES, _SPREAD = 5_000, 10_000, 2_000  # images at most

Autocast = Callable[[], AbstractContextManager[Any]]


def validation_features(
    trainable: Trainable, table: ImageTable, world: World, autocast: Autocast
) -> Tensor:
    """(N, D) of the validation images, at most 10,000: what `probe` and `snapshot` look at. Every
    rank takes part and gets all."""
    return features(trainable, table, sample(table.parts["val"], _QUERIES), world, autocast)


def probe(
    trainable: Trainable, table: ImageTable, found: Tensor, world: World, autocast: Autocast
) -> dict[str, float]:
    """PROBES of the validation images' features, with neighbours among training images (at most
    5,000); without labels the spread alone. Every rank takes part and gets the same."""
    std, rank = spread(found[:: -(-len(found) // _SPREAD)])
    figures = {"val/embedding_std": std, "val/effective_rank": rank}
    if table.labelled:
        known = sample(table.parts["train"], _BANK)
        bank = features(trainable, table, known, world, autocast)
        asked = torch.from_numpy(table.labels[sample(table.parts["val"], _QUERIES)])
        answers = torch.from_numpy(table.labels[known])
        figures["val/knn_accuracy"] = knn_accuracy(found, asked, bank, answers)
    return world.from_first(figures)  # type: ignore[no-any-return]


def snapshot(table: ImageTable, found: Tensor) -> dict[str, np.ndarray]:
    """What a map of the validation images' features is drawn from: `features` (N, D) float32,
    `labels` and `rows` (N,) int64, `classes` (K,) text."""
    rows = sample(table.parts["val"], _QUERIES)
    classes = np.array(table.classes if table.labelled else (), dtype=str)
    return {
        "features": found.numpy(),
        "labels": table.labels[rows],
        "rows": rows,
        "classes": classes,
    }


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
    at_once = trainable.evaluated_at_once(table.size) * world.size
    steps = evaluation_steps(np.arange(len(rows)), at_once)
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
