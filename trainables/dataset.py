"""Defines what all code about data sets shares: class names and size, indices, the ignored class
id, the error of a data set that cannot be used, and how its messages list names."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # in [0, 255]
IGNORED = 255  # class id in a mask: the pixel is neither trained on nor counted
Indices = npt.NDArray[np.int64]  # (N,) numbers of images in a data set, from 0


class DataError(Exception):
    """A data set cannot be used. The text is one line: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class DataInfo:
    """Holds what a model must know of its data.

    classes: names in the order of their ids; size: side of the square images in px; channels: 3
    are RGB, others are normalized.
    """

    classes: tuple[str, ...]
    size: int
    channels: int = 3


def few(words: Sequence[str], most: int = 5) -> str:
    """Return the first `most` words with commas, and how many more there are."""
    shown = ", ".join(words[:most])
    return shown + (f" and {len(words) - most} more" if len(words) > most else "")


def near(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest known one, if one is near, and all of them."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}there are: {', '.join(choices)}"
