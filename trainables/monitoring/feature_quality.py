"""Measures features before anything is trained on them: nearest neighbors, a linear probe, spread.

Features are (N, D) float tensors on any device, one row per image. For neighbors and spread only
directions count.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBORS = 20
_TEMPERATURE = 0.07
_RIDGE = 0.1  # penalty of the linear probe for each image of the bank
_CHUNK = 1024  # queries at once: their similarities to all of the bank must fit in memory
# isotropic features have a scaled spread of 1 and a rank of D; a point has 0 and 1
_LEAST_SPREAD, _LEAST_RANK = 0.02, 1.5
_FEW = 8  # images, whose rank says nothing


@torch.no_grad()
def knn_accuracy(
    queries: Tensor, query_labels: Tensor, bank: Tensor, bank_labels: Tensor, *, own: bool = False
) -> float:
    """Return the accuracy in [0, 1] of a vote of the 20 nearest neighbors in the bank by cosine
    similarity s, each with weight exp(s / 0.07) (Wu et al., arXiv:1805.01978, section 3.4).

    labels: (N,) int64 from 0; own: the queries are the bank, and no image is its own neighbor.
    Returns NaN if a feature is not finite. Raises ValueError without queries or neighbors.
    """
    nearest = min(NEIGHBORS, len(bank) - own)
    if not len(queries) or nearest < 1:
        raise ValueError(f"{len(queries)} images have no neighbors among {len(bank)}")
    bank, queries = F.normalize(bank.float()), F.normalize(queries.float())
    if not (bank.isfinite().all() and queries.isfinite().all()):
        return math.nan
    count, right = int(bank_labels.max()) + 1, 0
    for start in range(0, len(queries), _CHUNK):
        similarity = queries[start : start + _CHUNK] @ bank.T
        if own:
            similarity.diagonal(start).fill_(-math.inf)
        best, where = similarity.topk(nearest, dim=1)
        votes = torch.zeros(len(best), count, device=best.device)
        votes.scatter_add_(1, bank_labels[where], (best / _TEMPERATURE).exp())
        right += int((votes.argmax(1) == query_labels[start : start + _CHUNK]).sum())
    return right / len(queries)


@torch.no_grad()
def linear_accuracy(
    queries: Tensor, query_labels: Tensor, bank: Tensor, bank_labels: Tensor
) -> float:
    """Return the accuracy in [0, 1] of a linear classifier that is fitted to the bank.

    It is ridge regression of one-hot labels on features of mean 0 and variance 1 in the bank
    (scikit-learn's RidgeClassifier, penalty N / 10): solved at once, without steps, rates or random
    numbers. labels: (N,) int64 from 0. Returns NaN if a feature is not finite. Raises ValueError
    without queries or bank.
    """
    if not len(queries) or not len(bank):
        raise ValueError(f"{len(queries)} images cannot be judged by {len(bank)}")
    bank, queries = bank.double(), queries.double()
    if not (bank.isfinite().all() and queries.isfinite().all()):
        return math.nan
    mean, std = bank.mean(0), bank.std(0, correction=0)
    scale = torch.where(std > 1e-9 * std.max(), 1 / std, 0.0)  # what never varies says nothing
    bank, queries = (bank - mean) * scale, (queries - mean) * scale
    targets = F.one_hot(bank_labels).double()
    targets = targets - targets.mean(0)
    penalty = _RIDGE * len(bank)
    if len(bank) >= bank.shape[1]:
        matrix = bank.T @ bank
        matrix.diagonal().add_(penalty)
        weights = torch.linalg.solve(matrix, bank.T @ targets)
    else:  # the same solution from the smaller matrix
        matrix = bank @ bank.T
        matrix.diagonal().add_(penalty)
        weights = bank.T @ torch.linalg.solve(matrix, targets)
    share = F.one_hot(bank_labels).double().mean(0)
    return float(((queries @ weights + share).argmax(1) == query_labels).double().mean())


@torch.no_grad()
def feature_spread(features: Tensor) -> tuple[float, float]:
    """Return (std, rank) of the L2-normalized features; NaN where a feature is not finite.

    std: mean over dimensions of the standard deviation, in [0, 1/sqrt(D)], highest for isotropic
    features (Chen & He, arXiv:2011.10566, section 4.1). rank: the effective rank, exp of the
    entropy of the normalized singular values of the centered features (Roy & Vetterli, 2007), in
    [1, D]. All images in one point: (0, 1).
    """
    unit = F.normalize(features.double())
    if not unit.isfinite().all():
        return math.nan, math.nan
    centered = unit - unit.mean(0)
    std = float(centered.square().mean(0).sqrt().mean())
    # singular values by way of the smaller Gram matrix: ten times faster than svdvals
    gram = centered.T @ centered if len(centered) >= centered.shape[1] else centered @ centered.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = float(values.sum())
    if total <= 1e-9:
        return std, 1.0
    return std, math.exp(float(torch.special.entr(values / total).sum()))


def collapsed(std: float, rank: float, width: int, images: int | None = None) -> bool:
    """Return whether features with this spread no longer distinguish images.

    std, rank: as `feature_spread` returns them, NaN counts as collapsed; width: D; images: how many
    were measured, None: many. The rank of n images is at most n - 1, so of few it says nothing.
    """
    spread = std * math.sqrt(width) >= _LEAST_SPREAD
    few = images is not None and images < _FEW
    return not (spread and (few or rank >= _LEAST_RANK))
