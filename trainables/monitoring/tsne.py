"""Computes maps of features by t-SNE (van der Maaten & Hinton, 2008), one per epoch recorded.

No other file of this package imports this one: workers do not load openTSNE.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from openTSNE import TSNEEmbedding
from openTSNE.affinity import Affinities, joint_probabilities_nn
from torch import Tensor

Features = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
LEAST = 4  # images; fewer give no map
_PERPLEXITY = 30.0
_CHUNK = 1024  # images at once: their distances to all others must fit in memory
_SAME = 1e-6  # unit vectors that lie nearer to their mean are one point to float32
# exaggeration for 250 of 750 steps: 12 is the usual for a start from nothing; 1.5 moves points half
# as far from the map before and ends at a loss as low (1.0 leaves groups apart that have joined)
_FIRST, _LATER = 12.0, 1.5


def tsne(snapshots: Sequence[Features], seed: int = 0) -> list[Points]:
    """Map each snapshot, features (N, D) of the same images, to (N, 2) by cosine similarity.

    The first starts from its principal components, each later one from the map before it and is
    then turned and scaled to lie on it: the same image lies near the same place, as far as its
    neighbours stay the same. Features that are all the same give N times the point (0, 0).
    Perplexity 30, or a third of the images. Raises ValueError for fewer than 4 images, another
    number of images, or what is not finite.
    """
    maps: list[Points] = []
    before: Points | None = None  # the last map that has a shape
    for number, features in enumerate(snapshots):
        unit = _centered(features, number, len(snapshots[0]))
        if float(unit.norm(dim=1).max()) < _SAME:
            maps.append(np.zeros((len(unit), 2)))
            continue
        if before is None:
            before = _fit(unit, _principal(unit), _FIRST, seed)
        else:
            before = _aligned(_fit(unit, before, _LATER, seed), before)
        maps.append(before)
    return maps


def _centered(features: Features, number: int, images: int) -> Tensor:
    """Check, L2-normalize and center features: small numbers keep small distances apart."""
    if features.ndim != 2 or len(features) != images or images < LEAST:
        raise ValueError(
            f"snapshot {number}: features are {features.shape}, must be (N, D) "
            f"with the same N of at least {LEAST} images in every snapshot"
        )
    tensor = torch.from_numpy(np.array(features, dtype=np.float64))
    if not tensor.isfinite().all():
        raise ValueError(f"snapshot {number}: features are not finite")
    unit = F.normalize(tensor)
    return (unit - unit.mean(0)).float()


def _principal(unit: Tensor) -> Points:
    """Return the first two principal components, (N, 2), each with its larger extreme positive.

    They are scaled to a standard deviation of 0.0001, as t-SNE needs for its start.
    """
    unit = F.pad(unit, (0, 1)).double()  # a second one even for D = 1
    _, axes = torch.linalg.eigh(unit.T @ unit)
    points = unit @ axes[:, -2:].flip(1)
    largest = points.gather(0, points.abs().argmax(0, keepdim=True))
    points = torch.where(largest < 0, -points, points) / points.std()
    rounded: Points = points.numpy().round(6)  # as on other machines
    return rounded * 1e-4


def _fit(unit: Tensor, start: Points, exaggeration: float, seed: int) -> Points:
    """Optimize a map from `start`. Returns it with its mean at (0, 0).

    In one thread: openTSNE's threads wait spinning, so that on a busy machine two take up to
    twenty times as long as one.
    """
    perplexity = min(_PERPLEXITY, max(2.0, (len(unit) - 1) / 3))
    affinities = Affinities()
    affinities.P = joint_probabilities_nn(*_neighbours(unit, int(3 * perplexity)), [perplexity])
    # a hundredth of noise parts equal points and leaves a line, where there would be no way out
    noise = np.random.default_rng(seed).normal(scale=0.01 * start.std(), size=start.shape)
    embedding = TSNEEmbedding(start + noise, affinities, negative_gradient_method="auto", n_jobs=1)
    embedding.optimize(250, exaggeration=exaggeration, inplace=True)
    embedding.optimize(500, inplace=True)
    points: Points = np.array(embedding, dtype=np.float64)
    return np.asarray(points - points.mean(0))


def _neighbours(unit: Tensor, count: int) -> tuple[npt.NDArray[np.int64], Points]:
    """Return indices and distances of the nearest others, (N, min(count, N - 1)) each; exact."""
    nearest, squares = [], unit.square().sum(1)
    for start in range(0, len(unit), _CHUNK):
        rows = slice(start, start + _CHUNK)
        distance = squares[rows, None] + squares - 2 * unit[rows] @ unit.T
        distance.diagonal(start).fill_(math.inf)
        nearest.append(distance.topk(min(count, len(unit) - 1), dim=1, largest=False))
    indices = torch.cat([part.indices for part in nearest])
    distances = torch.cat([part.values for part in nearest]).clamp(min=0).sqrt()
    return indices.numpy(), distances.double().numpy()


def _aligned(points: Points, before: Points) -> Points:
    """Rotate, mirror and scale a map to lie on `before` as well as possible (Procrustes): t-SNE has
    no direction, and groups that are apart drift with every step."""
    left, _, right = np.linalg.svd(points.T @ before)
    return np.asarray(points @ (left @ right) * (before.std() / max(points.std(), 1e-12)))
