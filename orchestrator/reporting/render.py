"""What a Run has left behind → pictures beside it: t-SNE maps of its features, masks of watched
images, a diagram of its model.

    python -m orchestrator.reporting.render <store>/<key>/features

A process of its own, and a patient one: neither training nor tracking waits for it.
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

from orchestrator.reporting.architecture_plot import draw_architecture
from orchestrator.reporting.mask_plots import draw_confusion, draw_strip, strips_data
from orchestrator.reporting.plots import save
from orchestrator.reporting.tsne_plot import Snapshot, draw_tsne, tsne_data, tsne_page
from trainables.monitoring.architecture import as_text, from_plain
from trainables.monitoring.record_files import (
    ARCHITECTURE,
    CONFUSION,
    LAST_MASKS,
    MAPS,
    kept_features,
    kept_masks,
)
from trainables.monitoring.tsne import LEAST


def main(folder: Path) -> int:
    """Draw what is not there yet: the folder of the pictures is whole or absent. Returns the exit
    status: 1 where a file is damaged or holds too little, with a line on standard error."""
    os.nice(10)
    temporary = folder / f".{MAPS}.{os.getpid()}"
    try:
        temporary.mkdir(parents=True)
        _draw_maps(kept_features(folder), temporary / "plots")
        _draw_masks(kept_masks(folder), temporary / "masks")
        if (folder.parent / CONFUSION).is_file():
            found = _read(folder.parent / CONFUSION, "confusion", "classes")
            figure = draw_confusion(found["confusion"], [str(name) for name in found["classes"]])
            save(figure, temporary / "plots" / "confusion.png")
        _draw_model(folder.parent / ARCHITECTURE, temporary)
        if not (folder / MAPS).is_dir():
            temporary.rename(folder / MAPS)
    except (OSError, ValueError) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


def _draw_model(kept: Path, into: Path) -> None:
    """`plots/architecture.svg` and `.png`, `tables/architecture.txt`."""
    if not kept.is_file():
        return
    one = from_plain(json.loads(str(_read(kept, "json")["json"])))
    figure = draw_architecture(one)
    for ending in ("svg", "png"):
        save(figure, into / "plots" / f"architecture.{ending}")
    (into / "tables").mkdir()
    (into / "tables" / "architecture.txt").write_text(as_text(one), encoding="utf-8")


def _draw_masks(kept: Mapping[int, Path], into: Path) -> None:
    """`<image>_epoch<k>.png` of every watched image and epoch; `last.npz` is what the last ones
    are drawn from, so that models can be compared."""
    for epoch, path in kept.items():
        found = _read(path, "images", "truth", "predicted", "names", "classes", "colours")
        for strip in strips_data(epoch, found):
            save(draw_strip(strip), into / f"{strip.name}_epoch{epoch}.png")
    if kept:
        shutil.copyfile(path, into / LAST_MASKS)


def _draw_maps(kept: Mapping[int, Path], into: Path) -> None:
    """`tsne_epoch<k>.png` and `.html` of every epoch; of too few images `tsne.txt`, to say so."""
    if not kept:
        return
    snapshots = []
    for epoch, path in kept.items():
        found = _read(path, "features", "labels", "rows", "classes")
        snapshots.append(Snapshot(epoch, found["features"]))
    if len(found["rows"]) < LEAST:
        text = f"no t-SNE map: {len(found['rows'])} validation images, and it needs {LEAST}\n"
        into.mkdir(parents=True)
        (into / "tsne.txt").write_text(text, encoding="utf-8")
        return
    names = [f"image {row}" for row in found["rows"]]
    for one in tsne_data(snapshots, found["labels"], [str(name) for name in found["classes"]]):
        save(draw_tsne(one), into / f"tsne_epoch{one.epoch}.png")
        page = tsne_page(one, names)
        (into / f"tsne_epoch{one.epoch}.html").write_text(page, encoding="utf-8")


def _read(path: Path, *names: str) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in names}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged") from error


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
