"""Measures what an encoder has learned so far: features of a split, their neighbors and spread."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trainables.dataset import Indices
from trainables.loading.batches import BatchStream, evaluation_steps
from trainables.loading.image_table import ImageTable
from trainables.metrics import EFFECTIVE_RANK, EMBEDDING_STD, KNN
from trainables.monitoring.feature_quality import collapsed, feature_spread, knn_accuracy
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
    """Compute PROBES: spread of the validation features, and kNN accuracy if there are labels.

    validation: as `validation_features` returns it; neighbors are sought among at most 5,000
    training images. Every rank takes part and gets the same.
    """
    std, rank = feature_spread(validation[:: -(-len(validation) // _SPREAD)])
    figures = {EMBEDDING_STD: std, EFFECTIVE_RANK: rank}
    if table.labelled:
        rows = sample(table.parts["train"], _BANK)
        bank = features(trainable, table, rows, world, autocast)
        labels = torch.from_numpy(table.labels[sample(table.parts["val"], _QUERIES)])
        bank_labels = torch.from_numpy(table.labels[rows])
        figures[KNN] = knn_accuracy(validation, labels, bank, bank_labels)
    return world.broadcast(figures)  # type: ignore[no-any-return]


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


def looks_collapsed(figures: Mapping[str, float], width: int) -> bool:
    """Return whether the figures of a probe show collapsed features. width: D of the features."""
    std, rank = figures[EMBEDDING_STD], figures[EFFECTIVE_RANK]
    return collapsed(std, rank, width)


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
