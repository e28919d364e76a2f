"""Chooses the page of a file that holds several pictures: pages of a TIFF, frames of an animation.

One picture is read of each file. A file with several is refused unless a page is chosen, so that
none is left out in silence. Small copies and masks that a TIFF declares as such are no pages of
their own. Of the pictures that a phone stores in one JPEG the first is the photograph.
"""

from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from tifffile import TiffFile

_ANIMATED = ("GIF", "WEBP", "PNG")
_SUBFILE_TYPE = 254
_COPY_OR_MASK = 1 | 4  # bits of NewSubfileType


class SeveralPages(ValueError):
    """A file has several pictures, and none is chosen. what: kind and number, in words."""

    def __init__(self, what: str) -> None:
        cure = "save one as a file of its own, or choose one in the data set, such as `page: 1`"
        super().__init__(f"{what}: {cure}")
        self.what = what


def tiff_page(file: "TiffFile", page: int | None) -> int:
    """Return which page of a TIFF is read, from 0. page: the chosen one, from 1.

    Raises SeveralPages where none is chosen, ValueError where it has not the chosen one, and what
    tifffile raises.
    """
    count = len(file.pages)
    pictures = list(range(count))
    if count > 1:
        pictures = [index for index in pictures if _is_picture(file.pages[index])] or pictures
    if getattr(file.pages[pictures[0]], "imagedepth", 1) > 1:
        raise ValueError("TIFF of a volume: save its slices as files of their own")
    inside = int((file.imagej_metadata or {}).get("images", 1)) if file.is_imagej else 1
    _check("TIFF", "pages", max(len(pictures), inside), page)
    if (page or 1) > len(pictures):  # ImageJ writes one header for all pages of a large file
        raise ValueError(
            f"TIFF of ImageJ with {inside} pages behind one header: save each by itself"
        )
    return pictures[(page or 1) - 1]


def turn_to_frame(image: Image.Image, page: int | None) -> None:
    """Make the chosen frame of an animation, from 1, the one that is decoded.

    Raises ValueError as tiff_page.
    """
    frames = int(getattr(image, "n_frames", 1)) if image.format in _ANIMATED else 1
    _check(image.format or "image", "frames", frames, page)
    if page is not None and page > 1:
        image.seek(page - 1)


def _is_picture(page: Any) -> bool:
    tag = page.tags.get(_SUBFILE_TYPE)
    return not (int(tag.value) if tag is not None else 0) & _COPY_OR_MASK


def _check(kind: str, what: str, count: int, page: int | None) -> None:
    if count > 1 and page is None:
        raise SeveralPages(f"{kind} with {count} {what}")
    if page is not None and page > count:
        some = f"{count} {what if count > 1 else what.removesuffix('s')}"
        raise ValueError(f"{kind} with {some}, so it has no {what[:-1]} {page}: correct `page`")
