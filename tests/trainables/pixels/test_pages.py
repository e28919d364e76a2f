"""A file with several pictures is refused, or the page that is chosen is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from trainables.data.datasets import DatasetConfig, read
from trainables.loading.decoded_cache import load_table
from trainables.loading.fingerprints import fingerprint
from trainables.loading.image_files import open_images, unreadable_sample, write_image_list
from trainables.pixels.bands import AS_THE_FILE_SAYS, Reading
from trainables.pixels.images import UnreadableImage, open_bands, open_image
from trainables.pixels.mask_values import read_mask
from trainables.pixels.pairs import pair_size
from trainables.pixels.palette import Palette

LEVELS = (40, 120, 200)  # of the pages
BINARY = Palette(("background", "object"), numbers=(0, 1))


def stack(path: Path, dtype: Any = np.uint8, **options: Any) -> Path:
    """A file with three pages, each of one grey level."""
    with tifffile.TiffWriter(path) as file:
        for level in LEVELS:
            page = np.full((4, 6), level, dtype) * (257 if dtype == np.uint16 else 1)
            file.write(page.astype(dtype), photometric="minisblack", **options)
    return path


def animation(path: Path, **options: Any) -> Path:
    frames = [Image.new("RGB", (6, 4), (level,) * 3) for level in LEVELS]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def message(path: Path, reading: Reading = AS_THE_FILE_SAYS) -> str:
    with pytest.raises(UnreadableImage) as error:
        open_image(path, reading)
    return str(error.value)


def level(path: Path, page: int) -> int:
    pixels = np.asarray(open_image(path, Reading(page=page)))
    assert pixels.shape == (4, 6, 3)
    return round(float(pixels.mean()))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_counted_or_one_is_chosen(tmp_path: Path, dtype: Any) -> None:
    path = stack(tmp_path / "a.tif", dtype)
    assert message(path).startswith("TIFF with 3 pages: save one as a file of its own, or choose")
    assert [level(path, page) for page in (1, 2, 3)] == list(LEVELS)
    wanted = "TIFF with 3 pages, so it has no page 4: correct `page`"
    assert message(path, Reading(page=4)) == wanted


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.png", "PNG")])
def test_frames_of_an_animation_are_counted_or_one_is_chosen(
    tmp_path: Path, name: str, kind: str
) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    path = animation(tmp_path / name, **options)
    assert message(path).startswith(f"{kind} with 3 frames: ")
    assert [level(path, page) for page in (1, 2, 3)] == list(LEVELS)
    assert message(path, Reading(page=4)).endswith("it has no frame 4: correct `page`")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.bmp"])
def test_one_picture_is_the_first_page(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (6, 4), (120,) * 3).save(tmp_path / name)
    assert level(tmp_path / name, 1) == 120
    assert "so it has no " in message(tmp_path / name, Reading(page=2))


def test_small_copies_and_masks_inside_a_tiff_are_no_pages(tmp_path: Path) -> None:
    def written(path: Path, *kinds: int) -> Path:
        with tifffile.TiffWriter(path) as file:
            for kind in kinds:
                side, grey = (8, 200) if kind == 0 else (4, 10)
                picture = np.full((side, side, 3), grey, np.uint8)
                if kind == 4:  # a mask has one bit
                    file.write(picture[..., 0] > 5, photometric="minisblack", subfiletype=kind)
                else:
                    file.write(picture, photometric="rgb", subfiletype=kind)
        return path

    overviews = open_image(written(tmp_path / "a.tif", 0, 1, 1, 4))
    assert (overviews.size, overviews.getpixel((0, 0))) == ((8, 8), (200, 200, 200))
    thumbnail_first = open_image(written(tmp_path / "b.tif", 1, 0))
    assert (thumbnail_first.size, thumbnail_first.getpixel((0, 0))) == ((8, 8), (200, 200, 200))
    assert message(written(tmp_path / "c.tif", 0, 1, 0)).startswith("TIFF with 2 pages")


def test_stacks_of_imagej_and_volumes_are_counted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 4, 6), np.uint8), imagej=True)
    assert message(tmp_path / "a.tif").startswith("TIFF with 5 pages")
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        volume = np.zeros((16, 16, 16), np.uint8)
        file.write(volume, volumetric=True, tile=(16, 16, 16), photometric="minisblack")
    assert message(tmp_path / "b.tif").startswith("TIFF of a volume")


def test_the_photograph_of_a_phone_with_more_pictures_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (6, 4), (grey,) * 3) for grey in (120, 10))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "a.jpg") as image:
        assert (image.format, image.n_frames) == ("MPO", 2)  # type: ignore[attr-defined]
    assert round(float(np.asarray(open_image(tmp_path / "a.jpg")).mean())) == 120


def test_bands_are_read_of_the_chosen_page(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number in range(2):
            pixels = np.full((4, 6, 4), number + 7, np.float32)
            file.write(pixels, photometric="minisblack", planarconfig="contig")
    with pytest.raises(UnreadableImage, match="TIFF with 2 pages"):
        open_bands(tmp_path / "a.tif", Reading(channels=4))
    bands = open_bands(tmp_path / "a.tif", Reading(channels=4, page=2))
    assert bands.shape == (4, 6, 4) and (bands == 8).all()
    rgb = Reading(bands=(1, 2, 3), limits=(0, 16), page=2)
    assert np.asarray(open_image(tmp_path / "a.tif", rgb))[0, 0].tolist() == [128] * 3


def test_a_mask_of_several_pages_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        for number in range(2):
            file.write(np.full((4, 6), number, np.uint8), photometric="minisblack")
    for mask, kind in ((tmp_path / "m.tif", "TIFF with 2 pages"), (None, "GIF with 3 frames")):
        with pytest.raises(UnreadableImage, match=f"mask is a {kind}: save the one that fits"):
            read_mask(mask or animation(tmp_path / "m.gif"), BINARY)
    image = stack(tmp_path / "i.tif")
    assert pair_size(image, tmp_path / "m.tif", 2) == (6, 4)


def test_a_set_of_stacks_is_refused_when_planned_and_read_with_a_page(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(5):
            dtype = np.uint16 if number else np.uint8
            stack(
                tmp_path / f"data/{name}/{name}{number}.tif", dtype, description=f"{name}{number}"
            )
    config = DatasetConfig(type="image_folder", path=str(tmp_path / "data"), size=4)
    faults = unreadable_sample(read(config, None))
    assert faults and all(fault.startswith("TIFF with 3 pages") for fault in faults.values())
    keys = set()
    for page in (1, 3):
        chosen = config.model_copy(update={"page": page})
        table = load_table(chosen, tmp_path / "cache")
        assert np.unique(table.images[:]).tolist() == [LEVELS[page - 1]]
        keys.add(table.fingerprint)
        source = read(chosen, None)
        write_image_list(source, "fail", tmp_path / f"{page}.json")
        pixels, _ = open_images(tmp_path / f"{page}.json").open(0)
        assert int(pixels[0, 0, 0]) == LEVELS[page - 1]
    assert len(keys) == 2
    first = config.model_copy(update={"page": 1})  # what was read before pages could be chosen
    hashes = [fingerprint(read(c, None), c, tmp_path / "m.json") for c in (config, first)]
    assert hashes[0] == hashes[1]
