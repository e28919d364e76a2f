"""Normalizes the channels of a decoded data set by the mean and deviation of its training set."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from trainables.dataset import Indices


def standardize_file(path: Path, training: Indices) -> dict[str, list[float]]:
    """Replace the numbers of a .npy file by their distance from the mean, in deviations.

    path: of (N, C, S, S) float32, NaN where there is no image; training: the images that mean and
    deviation are taken of, each channel by itself. Where there is no image the file becomes 0, the
    mean. The file is synced. Returns `mean` and `std`, each (C,).
    """
    images: Any = np.load(path, mmap_mode="r+")
    count = np.zeros(images.shape[1])
    total, squares = np.zeros_like(count), np.zeros_like(count)
    for row in training:
        count += np.isfinite(images[row]).sum((1, 2))
        total += np.nansum(images[row], (1, 2), dtype=np.float64)
    mean = total / np.maximum(count, 1)
    for row in training:  # a second time: the squares of large numbers would lose their digits
        squares += np.nansum((images[row] - mean[:, None, None]) ** 2, (1, 2), dtype=np.float64)
    std = np.sqrt(squares / np.maximum(count, 1))
    std[std == 0] = 1.0  # a channel that is the same everywhere becomes 0
    for row in range(len(images)):
        images[row] = np.nan_to_num((images[row] - mean[:, None, None]) / std[:, None, None])
    images.flush()
    del images
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return {"mean": mean.tolist(), "std": std.tolist()}
