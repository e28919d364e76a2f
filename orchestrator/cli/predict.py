"""Predicts classes or masks of image files with the model of a Run: predict."""

import argparse
import contextlib
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from PIL import Image

from orchestrator.cli.console import MESSAGES, say
from orchestrator.cli.runs import find_run
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.drawing.mask_plots import default_colors, painted
from orchestrator.services import home_services
from orchestrator.storage.home import find_home
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.publisher import DAMAGED
from orchestrator.tracking.tags import Tag
from trainables.files import read_whole
from trainables.pixels.bands import Reading, is_tiff, preview
from trainables.pixels.images import UnreadableImage, open_image
from trainables.tasks.predictor import Classifier, Segmenter, load

_CSV = "predictions.csv"
_LONGEST = 200  # bytes of a file's name: most disks take 255


def predict(options: argparse.Namespace) -> int:
    """Print class and probability of each image, or write its mask and an overlay."""
    paths = list(dict.fromkeys(Path(name) for name in options.images))
    out = Path(options.out) if options.out else None
    if out:
        _check_folder(out)
    for path in paths:  # report unreadable files before anything starts
        _check_readable(path)
    home = find_home(options.home).create()
    settings = read_settings(options.mlflow)
    uri = home_services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    _, run_id = find_run(tracker.reader, options.run, home.name)
    with tempfile.TemporaryDirectory() as folder:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load(_download_model(tracker, options.run, run_id, Path(folder)), device)
    if model is None:
        raise Refused(
            f"{options.run} is a pretraining: predict with a Run that starts from it",
            2,
        )
    if isinstance(model, Segmenter):
        if out is None:
            raise Refused(
                f"{options.run} predicts masks: give the folder to write them to with --out DIR", 2
            )
        _write_masks(model, paths, out)
    else:
        _write_classes(model, paths, out)
    return 0


def _check_folder(out: Path) -> None:
    """Make the folder of results. Raises Refused where nothing can be written into it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise Refused(f"cannot write into --out {out}: {error.strerror}", 2) from error


def output_names(paths: Sequence[Path]) -> list[str]:
    """Return what the results of each image are called: its name without ending, and as much of the
    folders before it as tells it from the others."""
    names = [_name(path, 0) for path in paths]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        count = Counter(names)
        names = [
            _name(path, depth) if count[name] > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    taken: Counter[str] = Counter(names)
    for place, name in enumerate(names):  # such as `a_b.png` and `a/b.png`
        if taken[name] > 1:
            taken[name] -= 1
            number = next(n for n in itertools.count(2) if f"{name}_{n}" not in taken)
            names[place] = f"{name}_{number}"
            taken[names[place]] += 1
    return names


def _name(path: Path, depth: int) -> str:
    """Return the stem of a path (depth 0), its name with ending (1), or with folders before it."""
    parts = path.parts[-depth:] if depth else (path.stem,)
    name = "_".join(part.strip("/.") for part in parts if part.strip("/.")) or "image"
    return os.fsdecode(os.fsencode(name)[-_LONGEST:])


def _check_readable(path: Path) -> None:
    """Raise Refused unless a file can be read. How the bands of a TIFF are read, and which frame of
    an animation, the model says."""
    with _refusing(path):
        if not is_tiff(read_whole(path)):
            open_image(path, Reading(page=1))


def _open(path: Path, model: Classifier | Segmenter) -> Any:
    """Read an image as the model takes it: (H, W, channels). Raises Refused, which names it."""
    with _refusing(path):
        return model.open(path)


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into Refused, which names it."""
    try:
        yield
    except UnreadableImage as error:
        raise Refused(f"cannot read {path}: {error}", 2) from error
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror or error}", 2) from error


def _download_model(tracker: Tracker, name: str, run_id: str | None, folder: Path) -> Path:
    """Download the best checkpoint of a Run from MLflow. Returns its folder."""
    tags: Any = tracker.reader.run(run_id).tags if run_id else {}
    if Tag.REUSED_FROM in tags:  # the model belongs to the original Run
        tags = tracker.reader.run(tags[Tag.REUSED_FROM]).tags
    uri = tags.get(Tag.MODEL_BEST, DAMAGED)
    if uri == DAMAGED:
        raise Refused(
            f"{name} has no model in MLflow: it has not finished, or its checkpoint is damaged", 1
        )
    return tracker.reader.download_model(uri, folder)


def _write_classes(model: Classifier, paths: list[Path], out: Path | None) -> None:
    """Print the class of each image; with a folder also `predictions.csv` with every class."""
    width, tables = max(len(str(path)) for path in paths), []
    for path in paths:  # one at a time: their sizes differ
        row = model.predict(_open(path, model))
        row.insert(0, "image", str(path))
        tables.append(row)
        name, percent = str(row["class"][0]), 100 * float(row["probability"][0])
        say(f"{str(path):{width}}  {name}  {percent:.1f} %")
    if out:
        pandas.concat(tables, ignore_index=True).to_csv(out / _CSV, index=False)


def _write_masks(model: Segmenter, paths: list[Path], out: Path) -> None:
    """Write two files for each image and print its three largest classes.

    `<name>_mask.png` holds class ids, with the classes' colors as its palette;
    `<name>_overlay.png` is the image with the mask over it.
    """
    colors = np.array(model.colours or default_colors(len(model.classes)), dtype=np.uint8)
    width = max(len(str(path)) for path in paths)
    for path, name in zip(paths, output_names(paths), strict=True):
        pixels = _open(path, model)
        mask = model.predict(pixels)[0]
        indexed = Image.fromarray(mask)
        indexed.putpalette(colors.tobytes())
        indexed.save(out / f"{name}_mask.png")
        shown = pixels if pixels.dtype == np.uint8 else preview(pixels)
        overlay = (shown.astype(np.uint16) + painted(mask, colors)) // 2  # half of each
        Image.fromarray(overlay.astype(np.uint8)).save(out / f"{name}_overlay.png")
        shares = np.bincount(mask.ravel(), minlength=len(model.classes)) / mask.size
        largest = shares.argsort()[::-1][:3]
        texts = [f"{model.classes[k]} {100 * shares[k]:.1f} %" for k in largest]
        say(f"{str(path):{width}}  {', '.join(texts)}")
