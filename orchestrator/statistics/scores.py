"""Computes figures of a classification from its predictions of each test image."""

from typing import Any

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer[Any]]
_BINS = 15  # of the confidence, as in Guo et al. 2017


def confusion(labels: Integers, predicted: Integers, classes: int) -> npt.NDArray[np.int64]:
    """Count images, (K, K): rows are the truth, columns the prediction."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_accuracy(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the share of each class's images that are right (its recall), (K,) in [0, 1]; NaN for
    a class without an image."""
    count = matrix.sum(1)
    return np.where(count > 0, matrix.diagonal() / np.maximum(count, 1), np.nan)


def balanced_accuracy(matrix: npt.NDArray[np.int64]) -> float:
    """Return the mean of `class_accuracy` over the classes that have images: each class counts
    alike, however many images it has."""
    return float(np.nanmean(class_accuracy(matrix)))


def macro_f1(matrix: npt.NDArray[np.int64]) -> float:
    """Return the mean over classes of F1 = 2 TP / (2 TP + FP + FN); a class that is neither shown
    nor predicted is left out, as in scikit-learn."""
    hits, total = matrix.diagonal(), matrix.sum(0) + matrix.sum(1)
    return float((2 * hits[total > 0] / total[total > 0]).mean())


def top_accuracy(labels: Integers, top: Integers) -> float:
    """Return the share of images whose class is among the likeliest ones. top: (N, k) classes."""
    return float((top == labels[:, None]).any(1).mean())


def calibration_error(
    confidence: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_]
) -> float:
    """Return the expected calibration error, in [0, 1]: how far confidence and accuracy are apart,
    over 15 bins of equal width, weighted by their images (Guo et al. 2017, arXiv:1706.04599).

    confidence: (N,) probability of the predicted class; right: (N,) whether it is the true one. A
    bin holds its upper end, not its lower one.
    """
    bins = np.clip(np.ceil(np.asarray(confidence, dtype=float) * _BINS) - 1, 0, _BINS - 1)
    gaps = np.bincount(bins.astype(int), confidence - right.astype(float), _BINS)
    return float(np.abs(gaps).sum() / len(right))
