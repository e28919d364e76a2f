"""Decodes an image file of any common kind to upright RGB, and makes it square."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.dataset import DataError, few
from trainables.files import read_whole
from trainables.pixels.bands import (
    AS_THE_FILE_SAYS,
    Bands,
    Kind,
    Reading,
    check_plain,
    check_premultiplied,
    check_range,
    is_tiff,
    read_numbers,
    read_rgb,
    tiff_index,
    tiff_kind,
)
from trainables.pixels.pages import turn_to_frame

EXTENSIONS = tuple("jpg jpeg jpe jfif png bmp webp gif tif tiff ppm pgm pbm pnm".split())
# no other formats: for PostScript with the name of a photograph Pillow starts Ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_FEWEST_SHOWN = 15  # of the upper 8 bits, where none of 16 is above 4095
_OTHERS = (  # place, bytes → what the file is
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\xff\xd8\xff", "JPEG of a rare kind, or damaged"),
    (0, b"\x89PNG", "PNG of a rare kind, or damaged"),
    (128, b"DICM", "DICOM"),
    (0, b"8BPS", "Photoshop file"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy array"),
    (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"version https://git-lfs", "Git LFS pointer in place of the image"),
    (0, b"<!DOCTYPE html", "web page in place of the image"),
    (0, b"<!doctype html", "web page in place of the image"),
    (0, b"<html", "web page in place of the image"),
    (0, b"<svg", "SVG drawing"),
    (0, b"<?xml", "XML, perhaps an SVG drawing"),
)


class UnreadableImage(OSError):
    """Raised where a file holds no complete image. The text is the reason in a few words."""


def unreadable_images(reasons: Mapping[str, str]) -> DataError:
    """Return the error of a data set with images that cannot be read: name → reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    shown = few([f"{few(some)} ({reason})" for reason, some in names.items()], most=10)
    count = f"{len(reasons)} unreadable image{'s' if len(reasons) > 1 else ''}"
    return DataError(f"data set has {count}: {shown}: repair them or set `on_corrupt: skip`")


def open_image(path: Path, reading: Reading = AS_THE_FILE_SAYS) -> Image.Image:
    """Decode an image as RGB, upright by its EXIF orientation, transparency over white.

    reading: which bands are red, green and blue, which numbers are black and white, and which page
    is read. Raises UnreadableImage if the content is at fault, any other OSError if the file cannot
    be read.
    """
    data = read_whole(path)
    if not data:
        raise UnreadableImage("empty file")
    kind, page = None, reading.page
    try:
        if not reading.is_plain:
            return read_rgb(data, reading, FORMATS)
        if is_tiff(data):
            kind = tiff_kind(data, page)
            check_plain(kind)
            check_premultiplied(data, kind, page)
            if kind.is_rgb and kind.bands > 3 and not kind.alpha:  # the fourth may be near infrared
                return read_rgb(data, Reading(bands=(1, 2, 3), page=page), FORMATS)
        return _decoded(data, kind, page)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        name = f"{kind}, which is not read" if kind else name_of(data)
        raise UnreadableImage(name) from error
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage(reason_of(error)) from error


def open_bands(path: Path, reading: Reading) -> Bands:
    """Decode the numbers of all bands, upright: (H, W, channels). Raises as open_image."""
    data = read_whole(path)
    try:
        return read_numbers(data, reading, FORMATS)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(name_of(data) if data else "empty file") from error
    except Exception as error:  # decoders raise nearly everything on damaged input
        raise UnreadableImage(reason_of(error)) from error


def _decoded(data: bytes, kind: Kind | None, page: int | None) -> Image.Image:
    """Decode with Pillow. kind: of a TIFF."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if kind:
            image.seek(tiff_index(data, page))
        else:
            turn_to_frame(image, page)
        bits = kind.bits if kind else data[24] if image.format == "PNG" else 8
        upright = ImageOps.exif_transpose(image)
        return _rgb(upright, bits, few_bits=bool(kind) and bits < 16)


def square(image: Image.Image, size: int) -> Image.Image:
    """Crop the center square and scale it to size x size px.

    Bilinear with antialiasing, in one step, so that a long panorama costs no more than a square.
    """
    if image.size == (size, size):
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def _rgb(image: Image.Image, bits: int, few_bits: bool) -> Image.Image:
    """Convert any mode to RGB. bits: of one number in the file; few_bits: in its pixels too."""
    if image.mode.startswith("I"):  # grey of more bits, which convert() would clip, not scale
        pixels = np.asarray(image)
        if few_bits:
            grey = pixels.astype(np.float64) * (255 / ((1 << bits) - 1))
        else:
            check_range(pixels)
            grey = pixels.astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels")
    if bits == 16 and image.mode in ("RGB", "RGBA", "LA"):  # Pillow keeps the upper 8
        pixels = np.asarray(image)
        check_range(pixels[..., :-1] if image.mode in ("RGBA", "LA") else pixels, _FEWEST_SHOWN)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def name_of(data: bytes) -> str:
    """Return what a file that is not read is, by its first bytes."""
    for start, magic, name in _OTHERS:
        if data[start : start + len(magic)] == magic:
            if "in place of" in name:
                return f"{name}: download it again"
            return f"{name}, which is not read: save it as PNG or TIFF"
    return "not an image"


def reason_of(error: Exception) -> str:
    """Return in a few words why a file cannot be decoded."""
    if isinstance(error, UnreadableImage):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than Pillow's limit"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = " ".join(str(error).split())
    return "truncated" if "truncated" in text.lower() else text or type(error).__name__
