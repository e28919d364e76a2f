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
from trainables.files import read_whole
from trainables.pixels.bands import is_tiff, tiff_index
from trainables.pixels.images import FORMATS, UnreadableImage
from trainables.pixels.pages import SeveralPages, turn_to_frame
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
_COLOURED = ("RGB", "RGBA")
_INTEGERS = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_LARGEST = 1 << 40  # a number that no table names

Numbers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class MaskValues:
    """Holds the pixels of a mask file.

    values: (H, W) numbers as they are stored, or (H, W, 3) uint8 colors. factor: grey levels of 1,
    2 and 4 bits are shown as their number times this. palette: index → the color that it shows,
    of the indices that are used; empty without a palette of colors. grey_palette: the values are
    what a palette of grey levels shows.
    """

    values: Numbers
    factor: int = 1
    palette: Mapping[int, Color] = field(default_factory=dict)
    grey_palette: bool = False


@dataclass(frozen=True)
class MaskTally:
    """Counts the pixels of one mask.

    classes: pixels of each class. uncounted: value → pixels that the table lets not count.
    unknown: value → pixels that the table lacks, the most frequent ones. palette, grey_palette: as
    MaskValues. size: (width, height) in px of the pair, where it has files.
    """

    classes: list[int]
    uncounted: dict[str, int]
    unknown: dict[str, int]
    palette: dict[int, Color]
    grey_palette: bool = False
    size: tuple[int, int] | None = None


def read_mask(path: Path, palette: Palette) -> Ids:
    """Read a mask as (H, W) uint8 class ids, IGNORED where a pixel does not count.

    With colors in the table, what a mask shows decides: colors, grey levels, the colors of its
    palette. Else its numbers do: grey levels of 1 to 32 bits, or the indices of a palette, but of
    a grey palette what it shows. Raises UnreadableImage for another kind, a damaged file, a value
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


def mask_numbers(path: Path) -> frozenset[int]:
    """Return the numbers that a mask holds, where no table names them. Raises UnreadableImage."""
    return frozenset(np.unique(_numbers(path).values).tolist())


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
        values.grey_palette,
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
    """Return the numbers of a mask: grey levels, or indices of a palette with colors."""
    image = _opened(path)
    pixels = _without_alpha(image)
    if image.mode == "P":
        return _of_palette(image, pixels)
    if pixels.ndim == 3 and image.mode in _COLOURED:  # grey, as many programs save it
        if (pixels != pixels[..., :1]).any():
            raise UnreadableImage(
                "mask has colours, and the class table has none: give it the columns r, g, b"
            )
        return MaskValues(pixels[..., 0])
    if image.mode in ("1", "L", "LA"):
        return _of_grey(image, pixels)
    if image.mode in _INTEGERS:
        return MaskValues(pixels)
    if image.mode == "F" and (pixels == np.rint(pixels)).all():  # false for NaN
        return MaskValues(pixels.clip(-_LARGEST, _LARGEST).astype(np.int64))
    raise UnreadableImage(
        f"mask is {image.mode}, must hold whole numbers (grey levels or palette indices), since "
        "the class table has no colours"
    )


def _of_grey(image: Image.Image, pixels: npt.NDArray[Any]) -> MaskValues:
    """Return grey levels of 8 bits or fewer as they are stored."""
    if image.mode == "1":
        return MaskValues(pixels.astype(np.uint8), factor=255)
    if image.format == "TIFF" and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ()):  # type: ignore[attr-defined]
        return MaskValues(pixels.view(np.int8))
    factor = {1: 255, 2: 85, 4: 17}.get(_bits(image), 1)
    return MaskValues(pixels // factor, factor)


def _of_palette(image: Image.Image, indices: Ids) -> MaskValues:
    """Return indices of colors; where the whole palette is grey, the grey levels it shows."""
    colours = _palette_of(image)
    grey = (colours == colours[:, :1]).all()
    used = np.unique(indices)
    if len(colours) <= used[-1]:
        raise UnreadableImage(f"mask has the index {used[-1]}, which its palette lacks")
    if grey:
        return MaskValues(colours[indices, 0], grey_palette=True)
    return MaskValues(indices, palette={int(index): _color(colours[index]) for index in used})


def _colours(path: Path) -> Ids:
    """Return the colors that a mask shows, (H, W, 3) uint8."""
    image = _opened(path)
    pixels = _without_alpha(image)
    if image.mode == "P":
        colours = _palette_of(image)
        if len(colours) <= (last := int(pixels.max())):
            raise UnreadableImage(f"mask has the index {last}, which its palette lacks")
        return np.asarray(colours[pixels])
    if image.mode in _COLOURED:
        return np.asarray(pixels)
    if image.mode in ("1", "L", "LA"):
        grey = pixels.astype(np.uint8) * (255 if image.mode == "1" else 1)
        return np.repeat(grey[..., None], 3, axis=2)
    raise UnreadableImage(f"mask is {image.mode}, must show colours of 8 bits, as the class table")


def _palette_of(image: Image.Image) -> Ids:
    """Return the colors of a palette, (N, 3) uint8."""
    return np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)


def _color(values: Ids) -> Color:
    r, g, b = (int(value) for value in values)
    return r, g, b


def _without_alpha(image: Image.Image) -> npt.NDArray[Any]:
    """Return the pixels of a mask. Raises UnreadableImage where some are transparent."""
    pixels = np.array(image)
    if image.mode not in ("RGBA", "LA"):
        return pixels
    if (pixels[..., -1] != 255).any():
        raise UnreadableImage("mask has transparent pixels: save it without transparency")
    return pixels[..., 0] if image.mode == "LA" else pixels[..., :3]


def _bits(image: Image.Image) -> int:
    """Return the bits of a grey level in the file; Pillow stretches fewer than 8 to 0...255."""
    if image.format == "TIFF":
        return int(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))[0])  # type: ignore[attr-defined]
    return int(image.info.get("bits", 8))


def _opened(path: Path) -> Image.Image:
    """Return a decoded mask. Raises UnreadableImage."""
    data = read_whole(path)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if is_tiff(data):
                image.seek(tiff_index(data, None))
            else:
                turn_to_frame(image, None)
            image.load()
            if image.format == "PNG":
                image.info["bits"] = data[24]  # of the header chunk, which every PNG begins with
            return image
    except MemoryError:
        raise
    except SeveralPages as error:
        cure = "save the one that fits the image as a file of its own"
        raise UnreadableImage(f"mask is a {error.what}: {cure}") from error
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage("mask is damaged or no image") from error
