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
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from orchestrator.drawing.architecture_plot import draw_architecture
from orchestrator.drawing.epoch_pictures import (
    MASKS,
    read_arrays,
    save_masks,
    save_picture,
    save_views,
)
from orchestrator.drawing.mask_plots import draw_confusion, draw_mask_row, mask_rows
from orchestrator.drawing.style import save
from orchestrator.drawing.tsne_page import tsne_page
from orchestrator.drawing.tsne_plot import Snapshot, draw_tsne, tsne_data
from orchestrator.pages.pictures import TSNE
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
    kept_views,
)


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
    for epoch, path in kept_views(folder).items():
        save_views(into, epoch, path)
    if (folder.parent / CONFUSION).is_file():
        arrays = read_arrays(folder.parent / CONFUSION, "confusion", "classes")
        figure = draw_confusion(arrays["confusion"], [str(name) for name in arrays["classes"]])
        save(figure, into / "plots" / "confusion.png")
    _draw_model(folder.parent / ARCHITECTURE, into)


def _draw_model(recorded: Path, into: Path) -> None:
    """Write `plots/architecture.svg` and `.png`, and `tables/architecture.txt`."""
    if not recorded.is_file():
        return
    model = from_plain(json.loads(str(read_arrays(recorded, "json")["json"])))
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
        arrays = read_arrays(path, *MASKS)
        for row in mask_rows(epoch, arrays):
            save(draw_mask_row(row), into / f"{row.name}_epoch{epoch}.png")
        save_masks(into.parent, epoch, arrays)
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
        arrays = read_arrays(path, "features", "labels", "rows", "classes")
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
            save_picture(into.parent, TSNE, tsne_map.epoch, picture)


if __name__ == "__main__":
    main()
