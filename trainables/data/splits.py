"""Cuts a set into stratified parts, the same on every machine: arrays in, arrays out."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trainables.dataset import DataError, Indices
from trainables.numerics.seeds import permutation

TEST_FRACTION = 0.2  # of a data set without a test split


@dataclass(frozen=True)
class Cuts:
    """Holds what decides the parts.

    val_fraction: share of the training images in (0, 0.5]; seed: of the draw; limit: most training
    images, validation among them, None for all.
    """

    val_fraction: float
    seed: int
    limit: int | None


def complete(
    parts: Mapping[str, Indices], labels: Indices, classes: tuple[str, ...], cuts: Cuts
) -> dict[str, Indices]:
    """Return the given parts, plus a test and a validation part where they are missing.

    labels: (N,) of the whole set. Without classes the set is cut as if it were one class. With a
    limit, each part is a subset of the part without it: a network that is trained on all images
    has not seen those that a limited set validates with. Raises DataError if a class is too small.
    """
    train, test, val = parts["train"], parts.get("test"), parts.get("val")
    ids, names = (labels, classes) if classes else (np.zeros_like(labels), ("",))

    def take(purpose: str, of: Indices, counts: Indices) -> tuple[Indices, Indices]:
        return divide(of, ids, counts, names, (purpose, cuts.seed))

    counts = class_counts(ids[train], len(names))
    if test is None:
        train, test = take("test", train, fraction(counts, TEST_FRACTION))
        counts = class_counts(ids[train], len(names))
    _check_enough(counts, classes, cuts.limit)
    limited = cuts.limit is not None and cuts.limit < len(train)
    quotas = quota(counts, cuts.limit) if cuts.limit is not None and limited else counts
    if val is None:
        train, val = take("val", train, fraction(counts, cuts.val_fraction))
        if limited:
            held_out = fraction(quotas, cuts.val_fraction)
            _, val = take("limit", val, held_out)
            quotas = quotas - held_out
    if limited:
        _, train = take("limit", train, quotas)
    return {"train": train, "val": val, "test": test}


def limited(
    parts: Mapping[str, Indices],
    labels: Indices,
    classes: tuple[str, ...],
    most: Mapping[str, int],
    seed: int,
) -> dict[str, Indices]:
    """Return complete parts, each with at most so many images, in the proportions of the classes.

    most: part → number of images. Raises DataError if it leaves a class without images.
    """
    ids, names = (labels, classes) if classes else (np.zeros_like(labels), ("",))
    smaller = dict(parts)
    for part, limit in most.items():
        if limit >= len(parts[part]):
            continue
        counts = class_counts(ids[parts[part]], len(names))
        least = 2 if part == "train" else 1  # of a class
        needed = int(np.minimum(counts, least).sum())
        if limit < needed:
            raise DataError(
                f"limit {limit} of {part} is too small for {len(names)} classes with {least} "
                f"image{'s' if least > 1 else ''} each: set it to {needed} or more"
            )
        quotas = proportional(counts, limit, least)
        _, smaller[part] = divide(parts[part], ids, quotas, names, (f"limit {part}", seed))
    return smaller


def _check_enough(counts: Indices, classes: tuple[str, ...], limit: int | None) -> None:
    """Raise DataError unless every class has an image to train on and one to validate with."""
    if counts.min() < 2:
        what, cure = "data set", ""
        if classes:
            what, cure = f"class {classes[counts.argmin()]!r}", " or remove the class"
        raise DataError(
            f"{what} has too few training images ({counts.min()}): add some (2 at least){cure}"
        )
    if limit is not None and limit < 2 * len(classes):
        raise DataError(
            f"limit {limit} is too small for {len(classes)} classes with 2 training images each: "
            f"set it to {2 * len(classes)} or more"
        )


def class_counts(labels: Indices, classes: int) -> Indices:
    """Count the images of each class: labels (N,) in [0, classes) → (classes,) int64."""
    return np.bincount(labels, minlength=classes).astype(np.int64)


def fraction(counts: Indices, share: float) -> Indices:
    """Return that share of every class, rounded: at least one image of it, but never all."""
    quotas = np.rint(counts * share).astype(np.int64)
    images: Indices = np.clip(quotas, 1, np.maximum(counts - 1, 0))
    return images


def quota(counts: Indices, limit: int) -> Indices:
    """Return the share out `limit` images by class size: two per class first, largest remainders
    rounded up.

    counts: (K,) of 2 or more; limit in [2 K, sum of counts).
    """
    free, total = limit - 2 * len(counts), int((counts - 2).sum())
    shares, remainders = np.divmod((counts - 2) * free, total)
    largest = np.argsort(-remainders, kind="stable")
    shares[largest[: free - int(shares.sum())]] += 1
    return shares + 2


def proportional(counts: Indices, limit: int, least: int) -> Indices:
    """Share out `limit` images in proportion to class size, largest remainders rounded up, but
    `least` to each class, or all that it has, at the cost of the largest shares.

    counts: (K,); limit in [sum of these, sum of counts).
    """
    shares, remainders = np.divmod(counts * limit, int(counts.sum()))
    largest = np.argsort(-remainders, kind="stable")
    shares[largest[: limit - int(shares.sum())]] += 1
    needed = np.minimum(counts, least)
    while (lacking := np.flatnonzero(shares < needed)).size:
        shares[lacking[0]] += 1
        shares[np.argmax(shares - needed)] -= 1
    quotas: Indices = shares
    return quotas


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
        taken.append(members[permutation(len(members), *draw, name)[: counts[label]]])
    chosen = np.sort(np.concatenate(taken))
    return np.setdiff1d(indices, chosen, assume_unique=True), chosen
