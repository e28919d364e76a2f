"""Draw what a Run has recorded: t-SNE maps of its features, masks of watched images, its model.

    python -m orchestrator.drawing.render

Reads folders from standard input, a line each, in JSON: `"<store>/<key>/features"`. Writes a line
for each: `null`, or why it could not be drawn. It runs at low priority: neither training nor
tracking waits for it.
"""

import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from orchestrator.drawing.architecture_plot import draw_architecture
from orchestrator.drawing.mask_plots import draw_confusion, draw_mask_row, mask_rows, painted
from orchestrator.drawing.style import save
from orchestrator.drawing.tsne_plot import Snapshot, draw_tsne, tsne_data, tsne_page
from orchestrator.pages.pictures import FOLDER, PARTS, TSNE, files_of, mask_key
from orchestrator.storage.files import temporary_folder
from trainables.monitoring.architecture import as_text, from_plain
from trainables.monitoring.tsne import LEAST
from trainables.record_files import (
    ARCHITECTURE,
    CONFUSION,
    LAST_MASKS,
    MAPS,
    kept_features,
    kept_masks,
)

_LEAST_SIDE, _SMALL_SIDE = 256, 640  # px of the longer side: of a picture, of its small copy


def main() -> None:
    """Draw folder after folder until standard input ends."""
    os.nice(10)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    for line in sys.stdin:
        print(json.dumps(draw(Path(json.loads(line)))), file=answers, flush=True)


def draw(folder: Path) -> str | None:
    """Draw into `<folder>/maps`, which is renamed into place once it is complete.

    Returns None, or one line that says which file is damaged or cannot be drawn.
    """
    try:
        with temporary_folder(folder / MAPS, os.getpid()) as temporary:
            _draw_all(folder, temporary)
            if not (folder / MAPS).is_dir():
                temporary.rename(folder / MAPS)
    except (OSError, ValueError) as error:
        return f"{folder}: {error}"
    return None


def _draw_all(folder: Path, into: Path) -> None:
    """Write everything that a Run's recorded arrays allow to draw."""
    _draw_maps(kept_features(folder), into / "plots")
    _draw_masks(kept_masks(folder), into / "masks")
    if (folder.parent / CONFUSION).is_file():
        arrays = _read(folder.parent / CONFUSION, "confusion", "classes")
        figure = draw_confusion(arrays["confusion"], [str(name) for name in arrays["classes"]])
        save(figure, into / "plots" / "confusion.png")
    _draw_model(folder.parent / ARCHITECTURE, into)


def _draw_model(recorded: Path, into: Path) -> None:
    """Write `plots/architecture.svg` and `.png`, and `tables/architecture.txt`."""
    if not recorded.is_file():
        return
    model = from_plain(json.loads(str(_read(recorded, "json")["json"])))
    figure = draw_architecture(model)
    for ending in ("svg", "png"):
        save(figure, into / "plots" / f"architecture.{ending}")
    (into / "tables").mkdir()
    (into / "tables" / "architecture.txt").write_text(as_text(model), encoding="utf-8")


def _draw_masks(recorded: Mapping[int, Path], into: Path) -> None:
    """Write `<image>_epoch<k>.png` for every watched image and epoch.

    `last.npz` is a copy of the last epoch's arrays, from which a comparison of models is drawn.
    """
    for epoch, path in recorded.items():
        arrays = _read(path, "images", "truth", "predicted", "names", "classes", "colours")
        for number, row in enumerate(mask_rows(epoch, arrays), 1):
            save(draw_mask_row(row), into / f"{row.name}_epoch{epoch}.png")
            shown = (row.image, painted(row.truth, row.colors), painted(row.predicted, row.colors))
            for part, pixels in zip(PARTS, shown, strict=True):
                _save_picture(into.parent, mask_key(number, part), epoch, Image.fromarray(pixels))
    if recorded:
        shutil.copyfile(path, into / LAST_MASKS)


def _draw_maps(recorded: Mapping[int, Path], into: Path) -> None:
    """Write `tsne_epoch<k>.png` and `.html` for every epoch.

    Too few images for t-SNE: write `tsne.txt`, which says so.
    """
    if not recorded:
        return
    snapshots = []
    for epoch, path in recorded.items():
        arrays = _read(path, "features", "labels", "rows", "classes")
        snapshots.append(Snapshot(epoch, arrays["features"]))
    if len(arrays["rows"]) < LEAST:
        text = f"no t-SNE map: {len(arrays['rows'])} validation images, and it needs {LEAST}\n"
        into.mkdir(parents=True)
        (into / "tsne.txt").write_text(text, encoding="utf-8")
        return
    names = [f"image {row}" for row in arrays["rows"]]
    classes = [str(name) for name in arrays["classes"]]
    for tsne_map in tsne_data(snapshots, arrays["labels"], classes):
        stem = into / f"tsne_epoch{tsne_map.epoch}"
        save(draw_tsne(tsne_map), stem.with_suffix(".png"))
        stem.with_suffix(".html").write_text(tsne_page(tsne_map, names), encoding="utf-8")
        with Image.open(stem.with_suffix(".png")) as picture:
            _save_picture(into.parent, TSNE, tsne_map.epoch, picture)


def _save_picture(folder: Path, key: str, epoch: int, picture: Image.Image) -> None:
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


def _read(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file by name. Raises ValueError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged") from error


if __name__ == "__main__":
    main()
