"""Reads the bands of images that are more than 8-bit RGB: what a TIFF holds, which bands are
shown as red, green and blue, and how their numbers become grey levels."""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from trainables.pixels.pages import tiff_page, turn_to_frame

if TYPE_CHECKING:
    from tifffile import TiffFile

Array = npt.NDArray[Any]
Bands = npt.NDArray[np.float32]  # (H, W, bands)
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GREY, _RGB = (0, 1), 2  # of TIFF's PhotometricInterpretation
_ORIENTATION = 274
_ALPHA = (1, 2, 999)  # of ExtraSamples: the band is transparency; 999 is Corel Draw's
_PREMULTIPLIED = 1
_FEWEST = 4095  # a 16-bit image that has no larger number comes from a sensor of fewer bits


@dataclass(frozen=True)
class Reading:
    """Says how the bands of a file become an image.

    bands: from 1, those that are red, green and blue; none: as the file says. limits: the numbers
    that become black and white; None: the least and the largest of their type. channels: 3 for RGB
    of 8 bits; more: the numbers of so many bands as they are. page: which page of a TIFF or frame
    of an animation is read, from 1; None: files with several are refused.
    """

    bands: tuple[int, ...] = ()
    limits: tuple[float, float] | None = None
    channels: int = 3
    page: int | None = field(default=None, repr=False)  # of one picture the same, also in a hash

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Reading":
        """Return the reading of `dataclasses.asdict`, also after JSON; empty: as the file says."""
        low, high = plain.get("limits") or (0.0, 0.0)
        limits = (low, high) if plain.get("limits") else None
        bands, channels = tuple(plain.get("bands", ())), plain.get("channels", 3)
        return cls(bands, limits, channels, plain.get("page"))

    @property
    def is_plain(self) -> bool:
        """Return whether a file says by itself how its bands become an image."""
        return replace(self, page=None) == AS_THE_FILE_SAYS


AS_THE_FILE_SAYS = Reading()


@dataclass(frozen=True)
class Kind:
    """Tells what a TIFF holds.

    dtype: of its numbers; bits: of one number; photometric: of TIFF; alpha: the kind of
    transparency of the band after red, green and blue, or after grey; 0: none.
    """

    dtype: np.dtype[Any]
    bands: int
    bits: int
    photometric: int
    alpha: int

    def __str__(self) -> str:
        dtype = f"{self.bits}-bit" if self.bits < 8 * self.dtype.itemsize else str(self.dtype)
        return f"{dtype} TIFF with {self.bands} band{'s' if self.bands > 1 else ''}"

    @property
    def is_grey(self) -> bool:
        """Return whether it holds grey levels, perhaps with transparency."""
        return self.photometric in _GREY and self.bands == (2 if self.alpha else 1)

    @property
    def is_rgb(self) -> bool:
        """Return whether the first three bands are red, green and blue."""
        return self.photometric == _RGB and self.bands >= 3


def is_tiff(data: bytes) -> bool:
    """Return whether a file begins as a TIFF."""
    return data[:4] in _TIFF


def _opened(data: bytes) -> "TiffFile":
    from tifffile import TiffFile  # a third of a second to load, and few images are TIFF

    return TiffFile(io.BytesIO(data))


def tiff_kind(data: bytes, page_number: int | None = None) -> Kind:
    """Return what a page of a TIFF holds, see `pages.tiff_page`. Raises ValueError, and what
    tifffile raises."""
    with _opened(data) as file:
        page: Any = file.pages[tiff_page(file, page_number)]
        if page.dtype is None:
            raise ValueError(f"TIFF with numbers of {page.bitspersample} bits, which are not read")
        if np.dtype(page.dtype).kind not in "buif":
            raise ValueError(
                f"{page.dtype} TIFF, whose numbers are not real: save it in another way"
            )
        colours = 3 if page.photometric == _RGB else 1
        extra = tuple(int(value) for value in page.extrasamples)
        first_extra = extra[0] if extra and len(extra) == page.samplesperpixel - colours else 0
        return Kind(
            np.dtype(page.dtype),
            int(page.samplesperpixel),
            int(page.bitspersample),
            int(page.photometric),
            first_extra if first_extra in _ALPHA else 0,
        )


def tiff_index(data: bytes, page_number: int | None) -> int:
    """Return which page of a TIFF is read, from 0. Raises as `pages.tiff_page`."""
    with _opened(data) as file:
        return tiff_page(file, page_number)


def tiff_header(data: bytes, page_number: int | None = None) -> tuple[tuple[int, int], int]:
    """Return (width, height) of a page of a TIFF, turned as it says, and its EXIF orientation, 1
    without one. Of several pages it takes the first. Raises what tifffile raises."""
    with _opened(data) as file:
        page: Any = file.pages[tiff_page(file, page_number or 1)]
        width, height, orientation = int(page.imagewidth), int(page.imagelength), _orientation(page)
    return ((height, width) if orientation >= 5 else (width, height)), orientation


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION)
    value = int(tag.value) if tag is not None else 1
    return value if 1 <= value <= 8 else 1


def check_plain(kind: Kind) -> None:
    """Raise ValueError, naming the kind, unless a TIFF says by itself how it is to be shown."""
    if kind.photometric not in (*_GREY, _RGB):
        return  # palettes and printing colors, whose meaning is fixed
    missing = []
    if not (kind.is_grey or kind.is_rgb):
        missing.append("`bands`, those that are red, green and blue, such as [3, 2, 1]")
    if kind.dtype.kind not in "bu" or kind.dtype.itemsize > 2:
        missing.append("`limits`, the numbers that become black and white, such as [0, 1]")
    if missing:
        raise ValueError(f"{kind}: set {' and '.join(missing)}")


def check_premultiplied(data: bytes, kind: Kind, page: int | None = None) -> None:
    """Raise ValueError where a band that is called transparency cannot be it: colors that were
    multiplied with it are never larger."""
    if kind.alpha != _PREMULTIPLIED or not kind.is_rgb:
        return
    pixels = _tiff_pixels(data, page)
    if (pixels[..., :3].max(-1) > pixels[..., 3]).any():
        raise ValueError(
            f"{kind} whose band 4 is called transparency and cannot be it: set `bands`, such as "
            "[1, 2, 3]"
        )


def check_range(pixels: Array, shown: int = _FEWEST) -> None:
    """Raise ValueError where an image of 16 bits would be black. shown: what _FEWEST is in
    `pixels`."""
    largest = int(pixels.max(initial=0))
    if largest <= shown:
        ends = f" ({largest})" if shown == _FEWEST else ""
        raise ValueError(
            f"16-bit image without a number above {_FEWEST}{ends}, as of a sensor of 12 bits or "
            "fewer: set `limits`, the numbers that become black and white, such as [0, 4095]"
        )


def read_rgb(data: bytes, reading: Reading, formats: tuple[str, ...]) -> Image.Image:
    """Return an image of the bands and limits that are asked for. Raises ValueError, and what the
    decoders raise."""
    pixels, name, bits, is_rgb = _pixels(data, formats, reading.page)
    bands = reading.bands or ((1, 2, 3) if is_rgb else (1, 1, 1) if pixels.shape[2] == 1 else ())
    if not bands:
        raise ValueError(f"{name}: set `bands`, such as [3, 2, 1]")
    if max(bands) > pixels.shape[2]:
        raise ValueError(f"{name}, so it has no band {max(bands)}: correct `bands`")
    return Image.fromarray(_grey_levels(pixels[..., [b - 1 for b in bands]], reading, name, bits))


def read_numbers(data: bytes, reading: Reading, formats: tuple[str, ...]) -> Bands:
    """Return the numbers of all bands, or of those that are asked for. Raises ValueError, and what
    the decoders raise."""
    pixels, name, _, _ = _pixels(data, formats, reading.page)
    count = pixels.shape[2]
    if not reading.bands and count != reading.channels:
        raise ValueError(
            f"{name}, not {reading.channels}: correct `channels`, or choose some with `bands`"
        )
    if reading.bands and max(reading.bands) > count:
        raise ValueError(f"{name}, so it has no band {max(reading.bands)}: correct `bands`")
    chosen = pixels[..., [b - 1 for b in reading.bands]] if reading.bands else pixels
    numbers = chosen.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} has numbers that are not finite: replace them")
    return numbers


def square_bands(numbers: Bands, size: int) -> Bands:
    """Crop the center square and scale it to size x size px, band by band, as images are."""
    height, width, count = numbers.shape
    if (height, width) == (size, size):
        return numbers
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    planes = (
        Image.fromarray(np.ascontiguousarray(numbers[..., band])).resize(
            (size, size), Image.Resampling.BILINEAR, box=box
        )
        for band in range(count)
    )
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def preview(numbers: Bands) -> npt.NDArray[np.uint8]:
    """Show the first three bands, or one, as RGB: (H, W, bands) → (H, W, 3) uint8, the least number
    black and the largest white."""
    shown = numbers[..., :3] if numbers.shape[-1] >= 3 else numbers[..., [0, 0, 0]]
    low, high = float(shown.min()), float(shown.max())
    grey: npt.NDArray[np.uint8] = np.rint((shown - low) * (255 / max(high - low, 1e-12)))
    return grey.astype(np.uint8)


def _grey_levels(pixels: Array, reading: Reading, name: str, bits: int) -> npt.NDArray[np.uint8]:
    if reading.limits is None:
        if pixels.dtype == np.uint8 and bits == 8:
            return pixels
        if pixels.dtype.kind not in "bu" or pixels.dtype.itemsize > 2:
            raise ValueError(f"{name}: set `limits`, the numbers that become black and white")
        if bits == 16:
            check_range(pixels)
        low, high = 0.0, float((1 << bits) - 1)
    else:
        low, high = reading.limits
        if pixels.dtype == np.uint8 and high > 255:
            raise ValueError(f"{name}, whose largest number is 255: correct `limits`")
    numbers = pixels.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} has numbers that are not finite: replace them")
    return np.rint((numbers - low).clip(0, high - low) * 255 / (high - low)).astype(np.uint8)


def _pixels(
    data: bytes, formats: tuple[str, ...], page: int | None
) -> tuple[Array, str, int, bool]:
    """Return upright (H, W, bands) numbers, what the file is, bits, and whether it is RGB."""
    if is_tiff(data):
        kind = tiff_kind(data, page)
        if kind.photometric not in (*_GREY, _RGB):
            raise ValueError(f"{kind} of other colours than grey and RGB: remove bands and limits")
        return _tiff_pixels(data, page), str(kind), kind.bits, kind.is_rgb
    with Image.open(io.BytesIO(data), formats=formats) as image:
        turn_to_frame(image, page)
        upright = ImageOps.exif_transpose(image)
        if image.format == "PNG" and data[24] == 16 and upright.mode in ("RGB", "RGBA", "LA"):
            raise ValueError("PNG with 16 bits and colours, of which 8 are read: save it as TIFF")
        if upright.mode in ("P", "CMYK", "1"):
            upright = upright.convert("RGB")
        pixels = np.asarray(upright)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    count = pixels.shape[2]
    name = f"{pixels.dtype} {image.format} with {count} band{'s' if count > 1 else ''}"
    return pixels, name, 8 * pixels.dtype.itemsize, count >= 3


def _tiff_pixels(data: bytes, page_number: int | None) -> Array:
    """Return a page of a TIFF as upright (H, W, bands)."""
    with _opened(data) as file:
        page: Any = file.pages[tiff_page(file, page_number)]
        pixels: Array = page.asarray()
        planes = page.samplesperpixel > 1 and int(page.planarconfig) == 2
        orientation = _orientation(page)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif planes:
        pixels = np.moveaxis(pixels, 0, -1)
    return _upright(pixels, orientation)


def _upright(pixels: Array, orientation: int) -> Array:
    """Turn (H, W, bands) as an EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
