"""An image and its mask lie alike, whatever EXIF says of one of them, or the pair is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from trainables.pixels.images import UnreadableImage
from trainables.pixels.pairs import TURNED, open_pair_image, read_header, read_pair_mask
from trainables.pixels.palette import Palette

ORIENTATION = 0x0112
PALETTE = Palette(("left", "right"), numbers=(0, 1))
WHITE = (255, 255, 255)


def scene(width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """An image that is white in one corner, and its mask, which is 1 there."""
    image, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height))
    image.paste(WHITE, (0, 0, 3, 2))
    mask.paste(1, (0, 0, 3, 2))
    return image, mask


def save(image: Image.Image, path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    if orientation > 1:
        exif[ORIENTATION] = orientation
    image.save(path, exif=exif)
    return path


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """What a viewer shows of these stored pixels."""
    image.getexif()[ORIENTATION] = orientation
    return ImageOps.exif_transpose(image)


def check_fits(image: Path, mask: Path) -> np.ndarray:
    """The mask is 1 exactly where the image is white. Returns it."""
    pixels, ids = np.asarray(open_pair_image(image, mask)), read_pair_mask(image, mask, PALETTE)
    assert pixels.shape[:2] == ids.shape
    assert np.array_equal(pixels[..., 0] == 255, ids == 1) and (ids == 1).sum() == 6
    return ids


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("size", [(8, 8), (8, 5)])
def test_an_image_whose_mask_has_no_orientation(
    tmp_path: Path, size: tuple[int, int], orientation: int, ending: str
) -> None:
    stored, drawn_on_stored = scene(*size)
    image = save(stored, tmp_path / f"a.{ending}", orientation)
    mask = save(drawn_on_stored, tmp_path / "a_mask.png", 1)
    told_by_sizes = size[0] != size[1] and orientation >= 5
    if not told_by_sizes:
        for read in (open_pair_image, lambda i, m: read_pair_mask(i, m, PALETTE)):
            with pytest.raises(UnreadableImage, match=TURNED):
                read(image, mask)
        return
    assert check_fits(image, mask).shape == size[::-1]  # neither is turned
    drawn_on_shown = upright(drawn_on_stored, orientation)
    mask = save(drawn_on_shown, tmp_path / "shown.png", 1)
    assert check_fits(image, mask).shape == size  # the image is turned, its mask is so already


@pytest.mark.parametrize(
    "endings", [("png", "png"), ("tif", "png"), ("png", "tif"), ("tif", "tif")]
)
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(8, 8), (8, 5)])
def test_both_with_the_same_orientation_are_turned_alike(
    tmp_path: Path, size: tuple[int, int], orientation: int, endings: tuple[str, str]
) -> None:
    image, mask = (
        save(pixels, tmp_path / f"{kind}.{ending}", orientation)
        for pixels, kind, ending in zip(scene(*size), ("image", "mask"), endings, strict=True)
    )
    assert check_fits(image, mask).shape == (size if orientation >= 5 else size[::-1])


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_whose_image_has_no_orientation(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    shown, drawn = scene(8, 5)
    image = save(shown, tmp_path / "a.png", 1)
    mask = save(drawn, tmp_path / f"stored.{ending}", orientation)
    if orientation < 5:
        with pytest.raises(UnreadableImage, match=TURNED):
            read_pair_mask(image, mask, PALETTE)
        return
    check_fits(image, mask)  # by their sizes both were drawn alike
    image = save(upright(shown, orientation), tmp_path / "b.png", 1)
    check_fits(image, mask)  # the mask is turned as EXIF says


def test_two_orientations_that_differ_are_refused(tmp_path: Path) -> None:
    image, mask = scene(8, 5)
    first = save(image, tmp_path / "a.png", 6)
    with pytest.raises(UnreadableImage, match=TURNED):
        open_pair_image(first, save(mask, tmp_path / "b.png", 8))


def test_jpegs_too_and_an_orientation_that_does_not_exist_is_none(tmp_path: Path) -> None:
    image, mask = scene(8, 5)
    drawn = save(mask, tmp_path / "a.png", 1)
    photograph = save(image, tmp_path / "a.jpg", 3)
    assert read_header(photograph).orientation == 3
    with pytest.raises(UnreadableImage, match=TURNED):
        open_pair_image(photograph, drawn)
    odd = save(image, tmp_path / "b.jpg", 9)
    assert open_pair_image(odd, drawn).size == (8, 5)


def test_an_image_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    _, mask = scene(8, 5)
    with pytest.raises(UnreadableImage, match="not an image"):
        open_pair_image(tmp_path / "a.png", save(mask, tmp_path / "b.png", 1))
