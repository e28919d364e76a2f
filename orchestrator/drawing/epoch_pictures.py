"""Draw the pictures that MLflow shows over the epochs of a Run with a slider: masks of watched
images, and the views that a training without labels compares."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.drawing.mask_plots import mask_rows, painted
from orchestrator.pages.pictures import FOLDER, PARTS, VIEWS, files_of, mask_key
from trainables.record_files import kept_masks, kept_views

MASKS = "images", "truth", "predicted", "names", "classes", "colours"
_VIEWS = "images", "one", "two"
_LEAST_SIDE, _SMALL_SIDE = 256, 640  # px of the longer side: of a picture, of its small copy
_GAP = 1  # px between two images of a grid


def draw_new(folder: Path, drawn: set[str], into: Path) -> list[str]:
    """Draw what a Run has kept and is not in `drawn`, into `into`/images. folder: its features.
    Returns the names of the files that are drawn now. Raises ValueError where one is damaged."""
    names = []
    for epoch, path in kept_masks(folder).items():
        if path.name not in drawn:
            save_masks(into, epoch, read_arrays(path, *MASKS))
            names.append(path.name)
    for epoch, path in kept_views(folder).items():
        if path.name not in drawn:
            save_views(into, epoch, path)
            names.append(path.name)
    return names


def save_masks(into: Path, epoch: int, arrays: dict[str, np.ndarray]) -> None:
    """Save a picture each of every watched image, its truth and its prediction."""
    for number, row in enumerate(mask_rows(epoch, arrays), 1):
        shown = (row.image, painted(row.truth, row.colors), painted(row.predicted, row.colors))
        for part, pixels in zip(PARTS, shown, strict=True):
            save_picture(into, mask_key(number, part), epoch, Image.fromarray(pixels))


def save_views(into: Path, epoch: int, path: Path) -> None:
    """Save one picture: a row of images, and below each its two views."""
    arrays = read_arrays(path, *_VIEWS)
    save_picture(into, VIEWS, epoch, Image.fromarray(_grid([arrays[name] for name in _VIEWS])))


def _grid(rows: list[np.ndarray]) -> np.ndarray:
    """Return rows of images, (n, S, S, 3) uint8 each, as one image with white gaps. Smaller images
    are enlarged to the largest ones."""
    side = max(row.shape[1] for row in rows)
    lines = []
    for row in rows:
        tiles = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST))
                 for image in row]  # fmt: skip
        padded = [np.pad(tile, [(0, _GAP), (0, _GAP), (0, 0)], constant_values=255)
                  for tile in tiles]  # fmt: skip
        lines.append(np.concatenate(padded, axis=1))
    return np.concatenate(lines)[:-_GAP, :-_GAP]


def save_picture(folder: Path, key: str, epoch: int, picture: Image.Image) -> None:
    """Write a picture for the slider over epochs, and its small copy. Single pixels stay to be
    seen: small pictures are enlarged."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    times = max(1, round(_LEAST_SIDE / max(picture.size)))
    large = picture.resize(
        (picture.width * times, picture.height * times), Image.Resampling.NEAREST
    )
    whole, small = files_of(key, epoch)
    large.save(target / whole)
    large.thumbnail((_SMALL_SIDE, _SMALL_SIDE))
    large.save(target / small)


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file by name. Raises ValueError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged") from error
