"""Bands of TIFFs become colours as the file or the study says, and are refused by kind else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from trainables.pixels.bands import Reading
from trainables.pixels.images import UnreadableImage, open_image

RGB = (20, 40, 90)
NIR = 3


def write(path: Path, bands: Any, dtype: str = "uint8", **options: Any) -> Path:
    """A TIFF of 6x4 px whose bands hold these numbers; `photometric` is grey unless it is said."""
    pixels = np.empty((4, 6, len(bands)), dtype=dtype)
    pixels[:] = bands
    options = {"photometric": "minisblack", "planarconfig": "contig", **options}
    if len(bands) == 1:
        pixels = pixels[..., 0]
        del options["planarconfig"]
    elif options["planarconfig"] == "separate":
        pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    tifffile.imwrite(path, pixels, **options)
    return path


def color(path: Path, **reading: Any) -> tuple[int, ...]:
    """The one color of an image."""
    pixels = np.asarray(open_image(path, Reading(**reading)))
    assert pixels.shape == (4, 6, 3) and (pixels == pixels[0, 0]).all()
    return tuple(pixels[0, 0].tolist())


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_a_fourth_band_is_no_transparency_unless_the_file_says_so(
    tmp_path: Path, planes: str, compression: str | None
) -> None:
    options = {"photometric": "rgb", "planarconfig": planes, "compression": compression}
    path = tmp_path / "a.tif"
    write(path, (*RGB, NIR), extrasamples=["unspecified"], **options)
    assert color(path) == RGB
    extra_samples = b"\x52\x01\x03\x00"  # number and type of the tag
    content = path.read_bytes()
    assert content.count(extra_samples) == 1
    path.write_bytes(content.replace(extra_samples, b"\xe9\xfd\x03\x00"))  # of no meaning
    assert color(path) == RGB
    clear = write(path, (*RGB, 0), extrasamples=["unassalpha"], **options)
    assert color(clear) == (255, 255, 255)
    assert color(clear, bands=(1, 2, 3)) == RGB


def test_more_bands_after_red_green_and_blue_are_left_out(tmp_path: Path) -> None:
    extra = ["unspecified"] * 2
    path = write(tmp_path / "a.tif", (*RGB, 9, 200), photometric="rgb", extrasamples=extra)
    assert color(path) == RGB
    assert color(path, bands=(5, 4, 1)) == (200, 9, 20)


def test_a_band_that_cannot_be_transparency_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, (*RGB, NIR), photometric="rgb", extrasamples=["assocalpha"])
    with pytest.raises(UnreadableImage, match="band 4 is called transparency and cannot be it"):
        open_image(path)
    assert color(path, bands=(3, 2, 1)) == RGB[::-1]
    write(path, (0, 0, 0, 0), photometric="rgb", extrasamples=["assocalpha"])
    assert color(path) == (255, 255, 255)


@pytest.mark.parametrize(
    ("bands", "dtype", "message"),
    [
        ([0] * 13, "float32", "float32 TIFF with 13 bands: set `bands`, .* and `limits`"),
        ([0] * 13, "uint16", "uint16 TIFF with 13 bands: set `bands`"),
        ([0] * 5, "uint8", "uint8 TIFF with 5 bands: set `bands`"),
        ([0] * 4, "uint8", "uint8 TIFF with 4 bands: set `bands`"),
        ([0] * 3, "uint16", "uint16 TIFF with 3 bands: set `bands`"),
        ([0] * 2, "uint8", "uint8 TIFF with 2 bands: set `bands`"),
        ([-5], "int16", "int16 TIFF with 1 band: set `limits`"),
        ([-5], "int8", "int8 TIFF with 1 band: set `limits`"),
        ([5], "uint32", "uint32 TIFF with 1 band: set `limits`"),
        ([0.5], "float64", "float64 TIFF with 1 band: set `limits`"),
    ],
)
def test_what_a_file_does_not_say_is_asked_for_by_kind(
    tmp_path: Path, bands: list[float], dtype: str, message: str
) -> None:
    path = write(tmp_path / "a.tif", bands, dtype)
    with pytest.raises(UnreadableImage, match=message):
        open_image(path)


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_bands_choose_and_order(tmp_path: Path, photometric: str) -> None:
    path = write(tmp_path / "a.tif", (10, 20, 30, 40, 50), photometric=photometric)
    assert color(path, bands=(3, 2, 1)) == (30, 20, 10)
    assert color(path, bands=(5, 5, 4)) == (50, 50, 40)
    with pytest.raises(UnreadableImage, match="uint8 TIFF with 5 bands, so it has no band 6"):
        open_image(path, Reading(bands=(6, 2, 1)))


def test_limits_scale_signed_12_bit_and_float_data_and_what_is_outside_is_cut(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.tif"
    for dtype, number, limits, wanted in (
        ("int16", -100, (-100, 155), 0),
        ("int16", 0, (-100, 155), 100),
        ("uint16", 4095, (0, 4095), 255),
        ("uint16", 5000, (0, 4095), 255),
        ("uint16", 1365, (0, 4095), 85),
        ("float32", 0.5, (0, 1), 128),
        ("float64", -7, (0, 1), 0),
        ("uint32", 1_000_000, (0, 2_000_000), 128),
        ("uint8", 50, (0, 100), 128),
    ):
        assert color(write(path, [number], dtype), limits=limits) == (wanted,) * 3, dtype
    assert color(write(path, (1, 2, 3, 4), "float32"), bands=(4, 3, 1), limits=(0, 5)) == (
        204, 153, 51,
    )  # fmt: skip


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    path = write(tmp_path / "a.tif", [number], "float32")
    with pytest.raises(UnreadableImage, match="float32 TIFF with 1 band has numbers that are not"):
        open_image(path, Reading(limits=(0, 1)))


def test_limits_of_16_bits_do_not_fit_8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", [200])
    with pytest.raises(UnreadableImage, match="largest number is 255: correct `limits`"):
        open_image(path, Reading(limits=(0, 4095)))


@pytest.mark.parametrize("kind", ["grey.tif", "grey.png", "rgb.tif", "rgba.tif", "chosen.tif"])
def test_12_bits_in_16_are_never_black(tmp_path: Path, kind: str) -> None:
    path, count = tmp_path / kind, {"g": 1, "r": 3, "c": 4}[kind[0]] + kind.startswith("rgba")
    reading = Reading(bands=(1, 2, 3)) if kind == "chosen.tif" else Reading()

    def save(number: int) -> None:
        if kind == "grey.png":
            Image.fromarray(np.full((4, 6), number, dtype=np.uint16)).save(path)
        else:
            shown = "rgb" if kind.startswith("rgb") else "minisblack"
            extra = ["unassalpha"] if kind == "rgba.tif" else None
            numbers = [number] * 3 + [65535] if count == 4 else [number] * count
            write(path, numbers, "uint16", photometric=shown, extrasamples=extra)

    save(4095)
    with pytest.raises(UnreadableImage, match="16-bit image without a number above 4095"):
        open_image(path, reading)
    if kind in ("grey.tif", "rgb.tif"):
        assert color(path, limits=(0, 4095)) == (255, 255, 255)
        assert color(path, limits=(0, 65535)) == (16, 16, 16)
    save(51400)
    assert color(path, bands=reading.bands) == (200, 200, 200)


def test_png_of_16_bits_and_colours_is_not_black_either(tmp_path: Path) -> None:
    import cv2

    for number, wanted in ((4000, None), (51400, (200, 200, 200))):
        cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6, 3), number, dtype=np.uint16))
        if wanted:
            assert color(tmp_path / "a.png") == wanted
        else:
            with pytest.raises(UnreadableImage, match="without a number above 4095"):
                open_image(tmp_path / "a.png")


def test_bands_and_limits_are_for_other_files_too(tmp_path: Path) -> None:
    Image.new("RGBA", (6, 4), (10, 20, 30, 200)).save(tmp_path / "a.png")
    assert color(tmp_path / "a.png", bands=(4, 3, 1)) == (200, 30, 10)
    Image.new("L", (6, 4), 60).save(tmp_path / "b.png")
    assert color(tmp_path / "b.png", limits=(0, 120)) == (128,) * 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_with_bands_a_file_is_turned_as_without(tmp_path: Path, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for ending in ("tif", "png"):
        path = tmp_path / f"a.{ending}"
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(path, exif=exif)
        chosen = np.asarray(open_image(path, Reading(bands=(3, 2, 1))))
        assert np.array_equal(chosen, np.asarray(open_image(path))[..., ::-1])


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"\x93NUMPY\x01\0", "NumPy array"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=f"^{name}.* which is not read: save it as PNG"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><title>404", "web page"),
    ],
)
def test_what_was_not_downloaded_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=f"^{name} in place of the image: download it again$"):
        open_image(tmp_path / "a.jpg")


def test_complex_numbers_are_refused_with_or_without_limits(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), 1 + 2j, np.complex64))
    for reading in (Reading(), Reading(limits=(0, 1)), Reading(bands=(1, 1, 1), limits=(0, 1))):
        with pytest.raises(UnreadableImage, match="^complex64 TIFF, whose numbers are not real"):
            open_image(tmp_path / "a.tif", reading)
