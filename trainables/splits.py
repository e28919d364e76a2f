"""Stratified cuts of a labelled set, the same on every machine: arrays in, arrays out."""

import numpy as np
import numpy.typing as npt

from trainables.randomness import permutation

Indices = npt.NDArray[np.int64]


def class_counts(labels: Indices, classes: int) -> Indices:
    """labels: (N,) in [0, classes) → (classes,) number of images of each class."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def fraction(counts: Indices, share: float) -> Indices:
    """That share of every class: at least one image of it, but never all of them."""
    wanted = np.rint(counts * share).astype(np.int64)
    share_of_each: Indices = np.clip(wanted, 1, np.maximum(counts - 1, 0))
    return share_of_each


def quota(counts: Indices, limit: int) -> Indices:
    """`limit` images shared out by class size: two a class first, largest remainders rounded up.

    counts: (K,) of 2 or more; limit in [2 K, sum of counts).
    """
    free, total = limit - 2 * len(counts), int((counts - 2).sum())
    shares, remainders = np.divmod((counts - 2) * free, total)
    largest = np.argsort(-remainders, kind="stable")
    shares[largest[: free - int(shares.sum())]] += 1
    return shares + 2


def divide(
    indices: Indices,
    labels: Indices,
    counts: Indices,
    classes: tuple[str, ...],
    draw: tuple[str, int],
) -> tuple[Indices, Indices]:
    """Take counts[k] images of class k out of `indices`. Returns (rest, taken), both sorted.

    labels: (N,) of the whole set; draw: purpose and seed. Which ones depends on the draw, the
    class's name and the order of its images in `indices` alone, so a class keeps its cut when
    another one is added.
    """
    taken = []
    for label, name in enumerate(classes):
        members = indices[labels[indices] == label]
        taken.append(members[permutation(len(members), *draw, name).numpy()[: counts[label]]])
    chosen = np.sort(np.concatenate(taken))
    return np.setdiff1d(indices, chosen, assume_unique=True), chosen
