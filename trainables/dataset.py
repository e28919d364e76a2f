"""Terms that all code about data sets shares: class names and size, indices, the ignored class id,
and the error of a data set that cannot be used."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IGNORED = 255  # class id in a mask: the pixel is neither learned nor counted
Indices = npt.NDArray[np.int64]  # (N,) places of images in a data set


class DataError(Exception):
    """A data set cannot be used: one line that says what is wrong and what to do."""


@dataclass(frozen=True)
class DataInfo:
    """What a model must know of its data: class names in the order of their ids, side in px."""

    classes: tuple[str, ...]
    size: int
