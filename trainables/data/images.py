"""An image file of any common kind → upright RGB → a square of a given side."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from trainables.dataset import IGNORED

EXTENSIONS = ("jpg", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff")
# Pillow itself would take any: PostScript under a photograph's name starts Ghostscript
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")


class UnreadableImage(OSError):
    """A file that is there but holds no whole image; the text is the reason in a few words."""


def open_image(path: Path) -> Image.Image:
    """The first frame as RGB, turned upright by its EXIF orientation, transparency over white.

    Raises UnreadableImage if the content is at fault, any other OSError if the file cannot be read.
    """
    data = path.read_bytes()
    if not data:
        raise UnreadableImage("empty file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _rgb(ImageOps.exif_transpose(image))
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on damaged input
        raise UnreadableImage(_reason(error)) from error


def square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, scaled to size x size px: shorter side to `size`, then a centre crop.

    Bilinear with antialiasing, in one step, so that a long panorama costs no more than a square.
    """
    if image.size == (size, size):
        return image
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)


def framed(image: Image.Image, size: int) -> Image.Image:
    """The whole image in the upper left of a black square of size x size px, which it must fit."""
    if image.size == (size, size):
        return image
    frame = Image.new("RGB", (size, size))
    frame.paste(image)
    return frame


def framed_mask(ids: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The same for (H, W) class ids: what lies beside the image does not count."""
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


def _reason(error: Exception) -> str:
    if isinstance(error, UnreadableImage):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than Pillow's limit"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = " ".join(str(error).split())
    return "truncated" if "truncated" in text.lower() else text or type(error).__name__
