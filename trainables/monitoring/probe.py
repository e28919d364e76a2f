"""Measures what an encoder has learned so far: features of a split, what they tell about classes,
and how far they are spread."""

import numpy as np
import torch
from torch import Tensor

from trainables.dataset import Indices
from trainables.loading.batches import BatchStream, evaluation_steps
from trainables.loading.image_table import ImageTable
from trainables.metrics import (
    EFFECTIVE_RANK,
    EMBEDDING_COLLAPSED,
    EMBEDDING_STD,
    KNN,
    LINEAR,
    PROJECTION_COLLAPSED,
    PROJECTION_RANK,
    PROJECTION_STD,
)
from trainables.monitoring.feature_quality import (
    collapsed,
    feature_spread,
    knn_accuracy,
    linear_accuracy,
)
from trainables.numerics.distributed import World
from trainables.numerics.precision import Autocast
from trainables.numerics.randomness import permutation
from trainables.trainable import Trainable

_BANK, _QUERIES, _SPREAD = 5_000, 10_000, 2_000  # images at most


def validation_features(
    trainable: Trainable, table: ImageTable, world: World, autocast: Autocast
) -> Tensor:
    """Compute the features of at most 10,000 validation images, (N, D) float32 on the CPU.

    They are what `probe` and `tsne_input` need. Every rank takes part and gets all of them.
    """
    return features(trainable, table, sample(table.parts["val"], _QUERIES), world, autocast)


def probe(
    trainable: Trainable, table: ImageTable, validation: Tensor, world: World, autocast: Autocast
) -> dict[str, float]:
    """Compute PROBES: spread of the validation features and of their projection; with labels the
    accuracy of nearest neighbors and of a linear probe.

    validation: as `validation_features` returns it. Both learn from at most 5,000 training images.
    Every rank takes part and gets the same. No weight and no random number of training changes.
    """
    figures = _spread(trainable, validation[:: _interval(len(validation))], world)
    if table.labelled:
        rows = sample(table.parts["train"], _BANK)
        bank = features(trainable, table, rows, world, autocast)
        labels = torch.from_numpy(table.labels[sample(table.parts["val"], _QUERIES)])
        bank_labels = torch.from_numpy(table.labels[rows])
        figures[KNN] = knn_accuracy(validation, labels, bank, bank_labels)
        figures[LINEAR] = linear_accuracy(validation, labels, bank, bank_labels)
    return world.broadcast(figures)  # type: ignore[no-any-return]


def spread(
    trainable: Trainable, table: ImageTable, world: World, autocast: Autocast
) -> dict[str, float]:
    """Compute what `probe` does without the accuracies, from at most 2,000 images: cheap enough for
    every epoch."""
    rows = sample(table.parts["val"], _QUERIES)
    rows = rows[:: _interval(len(rows))]
    figures = _spread(trainable, features(trainable, table, rows, world, autocast), world)
    return world.broadcast(figures)  # type: ignore[no-any-return]


def _interval(count: int) -> int:
    """Return every how many of `count` images the spread is measured on."""
    return -(-count // _SPREAD)


def _spread(trainable: Trainable, found: Tensor, world: World) -> dict[str, float]:
    """Return the spread of features (N, D), and of their projection if there is one."""
    std, rank = feature_spread(found)
    flat = collapsed(std, rank, found.shape[1], len(found))
    figures = {EMBEDDING_STD: std, EFFECTIVE_RANK: rank, EMBEDDING_COLLAPSED: float(flat)}
    trainable.set_training(False)
    projection = trainable.projected(found.to(world.device))
    if projection is not None:
        std, rank = feature_spread(projection.float().cpu())
        flat = collapsed(std, rank, projection.shape[1], len(found))
        figures |= {PROJECTION_STD: std, PROJECTION_RANK: rank, PROJECTION_COLLAPSED: float(flat)}
    return figures


def tsne_input(table: ImageTable, validation: Tensor) -> dict[str, np.ndarray]:
    """Return what a t-SNE map is drawn from: `features` (N, D) float32, `labels` and `rows` (N,)
    int64, `classes` (K,) text, empty without labels. validation: as of `validation_features`."""
    rows = sample(table.parts["val"], _QUERIES)
    classes = np.array(table.classes if table.labelled else (), dtype=str)
    return {
        "features": validation.numpy(),
        "labels": table.labels[rows],
        "rows": rows,
        "classes": classes,
    }


def sample(rows: Indices, most: int) -> Indices:
    """Return all rows, or `most` of them: always the same ones, in their order."""
    if len(rows) <= most:
        return rows
    return np.sort(rows[permutation(len(rows), "sample").numpy()[:most]])


def features(
    trainable: Trainable, table: ImageTable, rows: Indices, world: World, autocast: Autocast
) -> Tensor:
    """Compute features, (len(rows), D) float32 on the CPU of every rank, in the order of `rows`."""
    trainable.set_training(False)
    at_once = trainable.evaluated_at_once(table.size) * world.size
    steps = evaluation_steps(np.arange(len(rows)), at_once)
    mine = [world.share(step) for step in steps]
    parts: list[Tensor] = []
    for images, _, _ in BatchStream(table, [rows[step] for step in mine], world.device):
        with autocast():
            parts.append(trainable.features(images).float().cpu())
    shares = world.all_gather((np.concatenate(mine), torch.cat(parts)))
    result = torch.empty(len(rows), shares[0][1].shape[1])
    for places, values in shares:
        result[torch.from_numpy(places)] = values
    return result
