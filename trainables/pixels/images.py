"""Decodes an image file of any common kind to upright RGB, and makes it square."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.dataset import IGNORED, DataError, few
from trainables.files import read_whole

EXTENSIONS = tuple("jpg jpeg jpe jfif png bmp webp gif tif tiff ppm pgm pbm pnm".split())
# no other formats: for PostScript with the name of a photograph Pillow starts Ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


class UnreadableImage(OSError):
    """A file exists but holds no complete image. The text is the reason in a few words."""


def unreadable_images(reasons: Mapping[str, str]) -> DataError:
    """Return the error of a data set with images that cannot be read: name → reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    shown = few([f"{few(some)} ({reason})" for reason, some in names.items()], most=10)
    count = f"{len(reasons)} unreadable image{'s' if len(reasons) > 1 else ''}"
    return DataError(f"data set has {count}: {shown}: repair them or set `on_corrupt: skip`")


def open_image(path: Path) -> Image.Image:
    """Decode the first frame as RGB, upright by its EXIF orientation, transparency over white.

    Raises UnreadableImage if the content is at fault, any other OSError if the file cannot be read.
    """
    data = read_whole(path)
    if not data:
        raise UnreadableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _rgb(ImageOps.exif_transpose(image))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage(reason_of(error)) from error


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


def too_large(size: tuple[int, int], side: int) -> str:
    """Return why a pair of (width, height) px does not fit a square; empty if it does."""
    if max(size) <= side:
        return ""
    return (
        f"{size[0]}x{size[1]} px are more than `size: {side}`, and a mask is never made smaller: "
        "cut it into tiles, or raise `size`"
    )


def framed(image: Image.Image, size: int) -> Image.Image:
    """Paste an image into the upper left of a black square of size x size px; it must fit."""
    if image.size == (size, size):
        return image
    frame = Image.new("RGB", (size, size))
    frame.paste(image)
    return frame


def framed_mask(ids: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """Paste (H, W) class ids into the upper left of a square of IGNORED pixels."""
    frame = np.full((size, size), IGNORED, dtype=np.uint8)
    frame[: ids.shape[0], : ids.shape[1]] = ids
    return frame


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which convert() would clip instead of scale
        grey = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(np.rint(grey).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


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
