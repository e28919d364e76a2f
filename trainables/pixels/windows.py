"""Cuts images with masks that are larger than a square into squares that overlap."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from trainables.pixels.bands import Bands
from trainables.pixels.images import UnreadableImage
from trainables.pixels.palette import Ids

Places = Sequence[tuple[int, int]]  # top and left of each window in px
_OVERLAP = 4  # neighbors share this part of the side at least: a quarter


def windows(size: tuple[int, int], side: int) -> Places:
    """Return where the windows of an image of (width, height) px begin, row by row.

    They are side x side px, cover the image, lie evenly, and end with it. An image that fits has
    one, at (0, 0).
    """
    return [(top, left) for top in _starts(size[1], side) for left in _starts(size[0], side)]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    rest, step = length - side, max(1, side - side // _OVERLAP)
    gaps = -(-rest // step)
    return [round(place * rest / gaps) for place in range(gaps + 1)]


def cut_pair(
    image: Image.Image | Bands, ids: Ids, places: Places, into: tuple[npt.NDArray[Any], Ids]
) -> None:
    """Cut an image and its mask, (H, W), into windows.

    into: (n, channels, side, side) and (n, side, side) class ids, which keep what they hold beside
    the image. Raises UnreadableImage where image and mask are not of one size, or of another than
    `places` are for.
    """
    pixels, (cut, masks) = np.asarray(image), into
    (height, width), own, side = ids.shape, pixels.shape[:2], masks.shape[1]
    if own != (height, width):
        raise UnreadableImage(f"image has {own[1]}x{own[0]} px, its mask {width}x{height}")
    if list(places) != list(windows((width, height), side)):
        raise UnreadableImage(f"has {width}x{height} px, and its header says otherwise")
    for window, mask, (top, left) in zip(cut, masks, places, strict=True):
        part = pixels[top : top + side, left : left + side].transpose(2, 0, 1)  # HWC → CHW
        window[:, : part.shape[1], : part.shape[2]] = part
        mask[: part.shape[1], : part.shape[2]] = ids[top : top + side, left : left + side]
