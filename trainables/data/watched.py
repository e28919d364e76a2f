"""Finds the images that a study names to be watched."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from trainables.dataset import DataError, Indices, near
from trainables.layouts.mask_pairs import pair_name

_FIRST = 3  # validation images that are watched where a study names none


def watched_rows(
    names: Sequence[str], validation: Indices, wanted: Sequence[str], held_out: Sequence[int] = ()
) -> Indices:
    """Return the rows of the `wanted` images; without names the first three of validation.

    names: of all images of the data set; wanted: such as 0013, or with folders where two images
    have that name: validation/0013; held_out: rows that are preferred where a name fits several.
    Raises DataError for a name that no image or several images have.
    """
    if not wanted:
        return validation[:_FIRST]
    known: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        for short in _short_names(name):
            known.setdefault(short, []).append(row)
    preferred = set(held_out)
    rows = []
    for name in wanted:
        if name not in known:
            hint = near(name, known).partition("there are: ")[0].strip()
            raise DataError(f"there is no image {name!r} to watch{f' ({hint})' if hint else ''}")
        matches = known[name]
        if len(matches) > 1:
            matches = [row for row in matches if row in preferred] or matches
        if len(matches) > 1:
            choices = ", ".join(_short_names(names[row])[-1] for row in matches)
            raise DataError(f"image {name!r} to watch may be {choices}: name one of them")
        rows.append(matches[0])
    return np.array(rows, dtype=np.int64)


def _short_names(name: str) -> list[str]:
    """Return 0013, validation/0013, ... of data/validation/0013_sat.jpg."""
    folders = PurePosixPath(name).parent.parts
    ends = [pair_name(name)]
    for folder in reversed(folders):
        ends.append(f"{folder}/{ends[-1]}")
    return ends
