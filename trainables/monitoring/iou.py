"""Computes intersection over union from one confusion matrix over all images of all ranks.

It is not a mean over batches, ignored pixels do not count, and absent classes are not zero.
"""

import torch
from torch import Tensor

from trainables.dataset import IGNORED


def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Count pixels, (K, K) int64: rows are the truth, columns the prediction.

    predicted, truth: class ids in [0, K), of one shape; where `truth` is IGNORED a pixel does not
    count, whatever was predicted there. Counts add up over batches and ranks.
    """
    pairs = truth.long() * classes + predicted.long()
    pairs = pairs.masked_fill(truth == IGNORED, classes**2).flatten()  # these are cut off again
    if pairs.device.type == "cpu":
        counts = torch.bincount(pairs, minlength=classes**2 + 1)
    else:  # to read the largest number, as `bincount` does, would synchronize with a GPU
        counts = scattered(pairs, classes**2 + 1)
    return counts[:-1].view(classes, classes)


def scattered(numbers: Tensor, bins: int) -> Tensor:
    """Count numbers (N,) int64 in [0, bins) as `bincount` does, without reading one: (bins,)."""
    return numbers.new_zeros(bins).scatter_add_(0, numbers, torch.ones_like(numbers))


def class_iou(matrix: Tensor) -> Tensor:
    """Return the IoU of each class: (K, K) counts → (K,) float64 in [0, 1].

    NaN for a class without a pixel in the truth. Pixels that were predicted as an absent class
    count against the classes that they show.
    """
    counts = matrix.double()
    hits, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    iou = hits / (truth + predicted - hits)
    return torch.where(truth > 0, iou, torch.nan)


def class_accuracy(matrix: Tensor) -> Tensor:
    """Return the recall of each class: (K, K) counts → (K,) float64 in [0, 1]; NaN if absent."""
    counts = matrix.double()
    return counts.diagonal() / counts.sum(1)


def mean_iou(matrix: Tensor) -> float:
    """Return the mean of `class_iou` over the classes that are present; NaN if none is."""
    return float(class_iou(matrix).nanmean())
