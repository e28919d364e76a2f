"""Every common kind of image file becomes upright RGB; what is no whole image is named."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.pixels.images import (
    EXTENSIONS,
    UnreadableImage,
    open_image,
    square,
)

ORIENTATION = 0x0112  # the EXIF tag


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_every_accepted_extension_opens_as_rgb(tmp_path: Path, extension: str) -> None:
    path = saved(Image.new("RGB", (6, 5), (200, 40, 40)), tmp_path / f"a.{extension}")
    image = open_image(path)
    assert (image.mode, image.size) == ("RGB", (6, 5))
    assert np.abs(np.asarray(image).astype(int) - (200, 40, 40)).max() <= 4


def test_greyscale_gives_three_equal_channels(tmp_path: Path) -> None:
    path = saved(Image.new("L", (4, 4), 77), tmp_path / "a.png")
    assert open_image(path).getpixel((1, 1)) == (77, 77, 77)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 32768, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        image = open_image(saved(Image.fromarray(values), tmp_path / name))
        assert np.asarray(image)[0, :, 0].tolist() == [0, 100, 128, 255]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    path = saved(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), tmp_path / "clear.png")
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)
    path = saved(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), tmp_path / "half.png")
    assert open_image(path).getpixel((0, 0)) == (127, 127, 127)
    path = saved(Image.new("LA", (2, 2), (10, 0)), tmp_path / "grey.png")
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)


def test_a_palette_keeps_its_colours_and_its_transparent_one_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 200, 0, 9, 9, 9])
    image.putdata([0, 1])
    opened = open_image(saved(image, tmp_path / "a.png", transparency=1))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(0, 200, 0), (255, 255, 255)]


def test_cmyk_is_converted(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg")
    red, green, blue = open_image(path).getpixel((4, 4))
    assert red > 240 and green < 15 and blue < 15


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored lying on its left side: a quarter turn clockwise to view
    opened = open_image(saved(image, tmp_path / "a.png", exif=exif))
    assert opened.size == (2, 3)
    assert opened.getpixel((1, 0)) == (255, 255, 255)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "bmp", "tif"])
def test_half_a_file_is_unreadable(tmp_path: Path, extension: str) -> None:
    path = saved(noise(40, 30), tmp_path / f"a.{extension}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableImage):
        open_image(path)


def test_the_reason_is_given_in_a_few_words(tmp_path: Path) -> None:
    path = saved(noise(40, 30), tmp_path / "cut.jpg")
    path.write_bytes(path.read_bytes()[:-300])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image at all")
    saved(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "float.tif")
    reasons = {}
    for file in tmp_path.iterdir():
        with pytest.raises(UnreadableImage) as caught:
            open_image(file)
        reasons[file.stem] = str(caught.value)
    assert reasons == {
        "cut": "truncated",
        "empty": "empty file",
        "text": "not an image",
        "float": "float32 TIFF with 1 band: set `limits`, the numbers that become black and white, "
        "such as [0, 1]",
    }


def test_a_decompression_bomb_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.new("RGB", (30, 30)), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(UnreadableImage, match="more pixels than Pillow's limit"):
        open_image(path)


def test_a_missing_file_is_no_unreadable_image(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "gone.jpg")


def test_square_is_a_resize_of_the_shorter_side_and_a_centre_crop() -> None:
    image = noise(60, 20)
    expected = image.resize((24, 8), Image.Resampling.BILINEAR).crop((8, 0, 16, 8))
    assert np.array_equal(np.asarray(square(image, 8)), np.asarray(expected))
    upright = image.transpose(Image.Transpose.TRANSPOSE)
    expected = expected.transpose(Image.Transpose.TRANSPOSE)
    assert np.array_equal(np.asarray(square(upright, 8)), np.asarray(expected))


def test_square_averages_when_it_shrinks() -> None:
    board = np.indices((64, 64)).sum(0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    result = np.asarray(square(image, 8)).astype(int)
    assert np.abs(result - 127).max() < 12


def test_square_enlarges_small_images_and_leaves_fitting_ones_alone() -> None:
    image = noise(6, 6)
    assert square(image, 6) is image
    assert square(image, 24).size == (24, 24)


def test_square_of_a_hairline_stays_small() -> None:
    assert square(Image.new("RGB", (20_000, 1), "red"), 64).getpixel((63, 63)) == (255, 0, 0)
