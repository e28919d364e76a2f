"""Intersection over union from one confusion matrix over every pixel of every image of all ranks.

What neighbours get wrong: a mean over batches, ignored pixels that count, absent classes as zero.
"""

import torch
from torch import Tensor

from trainables.dataset import IGNORED


def confusion(predicted: Tensor, wanted: Tensor, classes: int) -> Tensor:
    """Counts of pixels, (K, K) int64: rows are the truth, columns the prediction.

    predicted, wanted: class ids in [0, K), of one shape; where `wanted` is IGNORED a pixel does not
    count, whatever was predicted there. Counts add up over batches and ranks.
    """
    counted = wanted != IGNORED
    pairs = wanted[counted].long() * classes + predicted[counted].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def class_iou(matrix: Tensor) -> Tensor:
    """(K, K) counts → (K,) float64 in [0, 1]; NaN for a class of which no pixel is in the truth.

    What was taken for an absent class is counted where it belongs: against the classes it is.
    """
    counts = matrix.double()
    hits, truth, taken = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou = hits / (truth + taken - hits)
    return torch.where(truth > 0, iou, torch.nan)


def class_accuracy(matrix: Tensor) -> Tensor:
    """(K, K) counts → (K,) float64: the share of a class's pixels that was found; NaN if absent."""
    counts = matrix.double()
    return counts.diagonal() / counts.sum(1)


def mean_iou(matrix: Tensor) -> float:
    """Mean of `class_iou` over the classes that are present; NaN if none is."""
    return float(class_iou(matrix).nanmean())
