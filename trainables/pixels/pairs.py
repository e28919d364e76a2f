"""Reads an image and its mask so that they lie alike, also where EXIF says to turn one of them.

A photograph may be stored lying on its side, with a note (EXIF orientation, 1 to 8) that says how
to turn it. Programs that draw masks often ignore the note.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainables.files import read_whole
from trainables.pixels.bands import AS_THE_FILE_SAYS, Bands, Reading, is_tiff, tiff_header
from trainables.pixels.images import FORMATS, UnreadableImage, open_bands, open_image, reason_of
from trainables.pixels.mask_values import read_mask
from trainables.pixels.palette import Ids, Palette

TURNED = "EXIF says to turn the image and not its mask, or both in different ways"
_ORIENTATION = 0x0112
_UPRIGHT = 1
_NOTES_OF_PNG = (b"eXIf", b"exif", b"xmp")  # of chunks that may hold an orientation
_BACK = {  # orientation → what undoes the turn that it asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_FORTH = _BACK | {6: _BACK[8], 8: _BACK[6]}  # orientation → the turn that it asks for


@dataclass(frozen=True)
class Header:
    """size: (width, height) in px, turned as EXIF says; orientation: of EXIF, 1 without one;
    loads_upright: Pillow turns it while it decodes."""

    size: tuple[int, int]
    orientation: int
    loads_upright: bool = False

    @property
    def stored_size(self) -> tuple[int, int]:
        """Return (width, height) before it is turned."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def read_header(path: Path, page: int | None = None) -> Header:
    """Read size and orientation without decoding. page: of a TIFF, from 1. Raises
    UnreadableImage."""
    data = read_whole(path)
    try:
        if is_tiff(data):
            return Header(*tiff_header(data, page), loads_upright=True)
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.size
            if image.format == "PNG" and not any(note in data for note in _NOTES_OF_PNG):
                return Header(size, _UPRIGHT)  # else Pillow decodes it all to look
            value = image.getexif().get(_ORIENTATION, _UPRIGHT)
            orientation = value if value in _BACK else _UPRIGHT
            upright = image.format == "TIFF"  # its size too
            lies = orientation >= 5 and not upright
            return Header(size[::-1] if lies else size, orientation, upright)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage(reason_of(error)) from error


def turns_to_undo(image: Path, mask: Path, page: int | None = None) -> tuple[int, int]:
    """Return the orientations that must be undone, of image and mask, so that they fit: 1 is none.
    page: of the image.

    Both are taken as EXIF says where it says the same of both. Where it says so of one of them
    alone, the sizes decide, else nobody knows: raises UnreadableImage (TURNED).
    """
    picture, drawn = read_header(image, page), read_header(mask)
    if picture.orientation == drawn.orientation:
        return _UPRIGHT, _UPRIGHT
    if _UPRIGHT not in (picture.orientation, drawn.orientation):
        raise UnreadableImage(TURNED)
    noted, other = (picture, drawn) if drawn.orientation == _UPRIGHT else (drawn, picture)
    as_noted, as_stored = noted.size == other.size, noted.stored_size == other.size
    if as_noted and as_stored:
        raise UnreadableImage(TURNED)
    if not as_stored:  # it fits when it is turned, or not at all
        return _UPRIGHT, _UPRIGHT
    undone = noted.orientation
    return (undone, _UPRIGHT) if noted is picture else (_UPRIGHT, undone)


def pair_size(image: Path, mask: Path, page: int | None = None) -> tuple[int, int]:
    """Return (width, height) of an image and its mask, by their headers. Raises UnreadableImage
    where they differ."""
    undone = turns_to_undo(image, mask, page)
    headers = read_header(image, page), read_header(mask)
    size, other = (
        header.size if turn == _UPRIGHT else header.stored_size
        for header, turn in zip(headers, undone, strict=True)
    )
    if size != other:
        raise UnreadableImage(f"image has {size[0]}x{size[1]} px, its mask {other[0]}x{other[1]}")
    return size


def open_pair_image(image: Path, mask: Path, reading: Reading = AS_THE_FILE_SAYS) -> Image.Image:
    """Open an image as open_image, turned so that its mask fits. Raises UnreadableImage."""
    undone, _ = turns_to_undo(image, mask, reading.page)
    opened = open_image(image, reading)
    return opened if undone == _UPRIGHT else opened.transpose(_BACK[undone])


def open_pair_bands(image: Path, mask: Path, reading: Reading) -> Bands:
    """Open an image as open_bands, turned so that its mask fits. Raises UnreadableImage."""
    undone, _ = turns_to_undo(image, mask, reading.page)
    opened = open_bands(image, reading)
    if undone == _UPRIGHT:
        return opened
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(opened, -1, 0))
    return np.stack([np.asarray(plane.transpose(_BACK[undone])) for plane in planes], axis=-1)


def read_pair_mask(image: Path, mask: Path, palette: Palette, page: int | None = None) -> Ids:
    """Read a mask as read_mask, turned so that it fits its image, of which a page may be chosen.
    Raises UnreadableImage."""
    _, undone = turns_to_undo(image, mask, page)
    header, ids = read_header(mask), read_mask(mask, palette)
    turn = None
    if header.loads_upright and undone != _UPRIGHT:
        turn = _BACK[undone]
    elif not header.loads_upright and undone == _UPRIGHT:
        turn = _FORTH.get(header.orientation)
    return ids if turn is None else np.array(Image.fromarray(ids).transpose(turn))
