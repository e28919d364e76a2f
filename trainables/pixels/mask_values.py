"""Reads mask files: the numbers or colors of their pixels, and the classes that these mean."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.dataset import IGNORED
from trainables.pixels.images import FORMATS, UnreadableImage
from trainables.pixels.palette import (
    UNKNOWN,
    Color,
    Ids,
    Palette,
    count_values,
    ids_of_colours,
    ids_of_numbers,
    rounded,
)

_BITS_PER_SAMPLE, _SAMPLE_FORMAT, _SIGNED = 258, 339, 2  # of TIFF
_INTEGERS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_LARGEST = 1 << 40  # a number that no table names

Numbers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class MaskValues:
    """The pixels of a mask file.

    values: (H, W) numbers as they are stored, or (H, W, 3) uint8 colors. factor: grey levels of 1,
    2 and 4 bits are shown as their number times this. palette: index → the color that it shows,
    of the indices that are used; empty for a file without a palette.
    """

    values: Numbers
    factor: int = 1
    palette: Mapping[int, Color] = field(default_factory=dict)


@dataclass(frozen=True)
class MaskTally:
    """Counts the pixels of one mask.

    classes: pixels of each class. uncounted: value → pixels that the table lets not count.
    unknown: value → pixels that the table lacks, the most frequent ones. palette: as MaskValues.
    """

    classes: list[int]
    uncounted: dict[str, int]
    unknown: dict[str, int]
    palette: dict[int, Color]


def read_mask(path: Path, palette: Palette) -> Ids:
    """Read a mask as (H, W) uint8 class ids, IGNORED where a pixel does not count.

    Masks with colors must show colors or grey levels, others numbers: grey levels of 1 to 32 bits,
    or the indices of a palette. Raises UnreadableImage for another kind, a damaged file, a value
    that the table lacks, and a mask in which no pixel counts.
    """
    values, ids = _look_up(path, palette)
    if (ids == UNKNOWN).any():
        (value, count), *others = count_values(values.values[ids == UNKNOWN]).items()
        what = "colour" if palette.colours else "value"
        more = f" and {len(others)} more {what}s" if others else ""
        raise UnreadableImage(
            f"mask has {count} pixels of {what} {value}{more}, which the class table lacks"
        )
    _check_counts(ids)
    return ids


def tally_mask(path: Path, palette: Palette) -> MaskTally:
    """Count the pixels of a mask. Raises UnreadableImage as read_mask, but not for values that
    the table lacks: these are counted too."""
    values, ids = _look_up(path, palette)
    _check_counts(ids)
    counts = np.bincount(ids.ravel(), minlength=len(palette.names))[: len(palette.names)]
    unknown = count_values(values.values[ids == UNKNOWN])
    return MaskTally(
        counts.tolist(),
        dict(count_values(values.values[ids == IGNORED])),
        dict(list(unknown.items())[:_MOST_UNKNOWN]),
        dict(values.palette),
    )


_MOST_UNKNOWN = 20  # of one mask: a photograph in place of a mask has thousands


def _check_counts(ids: Ids) -> None:
    if (ids == IGNORED).all():
        raise UnreadableImage("mask has no pixel that counts: remove the pair")


def _look_up(path: Path, palette: Palette) -> tuple[MaskValues, Ids]:
    """Return what a mask holds, as the table takes it, and its class ids."""
    if palette.colours:
        colours = _colours(path)
        if palette.rounded:
            colours = rounded(colours)
        return MaskValues(colours), ids_of_colours(colours, palette)
    found = _numbers(path)
    ids = ids_of_numbers(found.values, palette)
    if found.factor > 1 and (ids == UNKNOWN).any():
        shown = found.values * found.factor
        if set(np.unique(shown).tolist()) <= palette.named_numbers.keys():
            return MaskValues(shown), ids_of_numbers(shown, palette)
    return found, ids


def _numbers(path: Path) -> MaskValues:
    """Return the numbers of a mask: grey levels, or indices of its palette."""
    image = _opened(path)
    pixels = np.array(image)
    if image.mode == "1":
        return MaskValues(pixels.astype(np.uint8), factor=255)
    if image.mode == "L":
        factor = {1: 255, 2: 85, 4: 17}.get(_bits(image), 1)
        if image.format == "TIFF" and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):  # type: ignore[attr-defined]
            return MaskValues(pixels.view(np.int8))
        return MaskValues(pixels // factor, factor)
    if image.mode == "P":
        return MaskValues(pixels)
    if image.mode in _INTEGERS:
        return MaskValues(pixels)
    if image.mode == "F" and (pixels == np.rint(pixels)).all():  # false for NaN
        return MaskValues(pixels.clip(-_LARGEST, _LARGEST).astype(np.int64))
    raise UnreadableImage(
        f"mask is {image.mode}, must hold numbers (grey levels or palette indices), since the "
        "class table has no colours"
    )


def _colours(path: Path) -> Ids:
    """Return the colors that a mask shows, (H, W, 3) uint8."""
    image = _opened(path)
    if image.mode != "RGB":
        raise UnreadableImage(f"mask is {image.mode}, must be RGB as in the colour table")
    return np.array(image)


def _bits(image: Image.Image) -> int:
    """Return the bits of a grey level in the file; Pillow stretches fewer than 8 to 0...255."""
    if image.format == "TIFF":
        return int(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0])  # type: ignore[attr-defined]
    return int(image.info.get("bits", 8))


def _opened(path: Path) -> Image.Image:
    """Return the decoded first frame. Raises UnreadableImage."""
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            if image.format == "PNG":
                image.info["bits"] = data[24]  # of the header chunk, which every PNG begins with
            return image
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage("mask is damaged or no image") from error
