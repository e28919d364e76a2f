"""Features that a Run's worker has kept → t-SNE pictures of every epoch, beside them.

    python -m orchestrator.maps <store>/<key>/features

A process of its own, and a patient one: neither training nor tracking waits for it.
"""

import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from orchestrator.artist import MAPS, kept_features
from orchestrator.plots import save
from orchestrator.tsne import Snapshot, draw_tsne, tsne_data, tsne_page


def main(folder: Path) -> int:
    """Draw what is not there yet: the folder of the pictures is whole or absent. Returns the exit
    status: 1 where a file is damaged or holds too little, with a line on standard error."""
    os.nice(10)
    temporary = folder / f".{MAPS}.{os.getpid()}"
    try:
        temporary.mkdir()
        _draw(kept_features(folder), temporary)
        if not (folder / MAPS).is_dir():
            temporary.rename(folder / MAPS)
    except (OSError, ValueError) as error:
        print(f"{folder}: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


def _draw(kept: Mapping[int, Path], into: Path) -> None:
    """`tsne_epoch<k>.png` and `.html` of every epoch."""
    snapshots = []
    for epoch, path in kept.items():
        found = _read(path)
        snapshots.append(Snapshot(epoch, found["features"]))
    names = [f"image {row}" for row in found["rows"]]
    for one in tsne_data(snapshots, found["labels"], [str(name) for name in found["classes"]]):
        save(draw_tsne(one), into / f"tsne_epoch{one.epoch}.png")
        page = tsne_page(one, names)
        (into / f"tsne_epoch{one.epoch}.html").write_text(page, encoding="utf-8")


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in ("features", "labels", "rows", "classes")}
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged") from error


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
