"""The command that uses what was trained: predict."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas
from PIL import Image

from orchestrator.cli.console import ERRORS
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.execution import services
from orchestrator.reporting.mask_plots import Pixels, default_colours, painted
from orchestrator.storage.home import find_home
from orchestrator.tracking.mlflow_client import Tracker
from orchestrator.tracking.run_states import find_run
from trainables.data.images import UnreadableImage, open_image
from trainables.tasks.predictor import Classifier, Segmenter, load

_CSV = "predictions.csv"
_SHARE = 0.5  # of the mask's colours in an overlay


def predict(options: argparse.Namespace) -> int:
    """What a Run's model says of images: class and probability, or a mask and an overlay."""
    paths = [Path(name) for name in options.images]
    _check_names(paths)
    for path in paths:  # all errors before anything starts, one image in memory at a time
        _open(path)
    home = find_home(options.home).create()
    settings = read_settings(options.mlflow)
    uri = services.start(home, settings, ERRORS.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    _, run_id = find_run(tracker, options.run)
    with tempfile.TemporaryDirectory() as folder:
        model = load(_files(tracker, options.run, run_id, Path(folder)))
    if model is None:
        raise Refused(f"{options.run} is a pretraining: predict with a Run that starts from it", 2)
    out = Path(options.out) if options.out else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Segmenter):
        if out is None:
            raise Refused(f"{options.run} predicts masks: say where to put them with --out DIR", 2)
        _write_masks(model, paths, out)
    else:
        _write_classes(model, paths, out)
    return 0


def _check_names(paths: list[Path]) -> None:
    stems = dict[str, Path]()
    for path in paths:
        if path.stem in stems:
            raise Refused(f"{stems[path.stem]} and {path} would be written to one file", 2)
        stems[path.stem] = path


def _open(path: Path) -> Pixels:
    """(H, W, 3). Raises Refused, which names the file."""
    try:
        return np.asarray(open_image(path))
    except UnreadableImage as error:
        raise Refused(f"cannot read {path}: {error}", 2) from error
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror or error}", 2) from error


def _files(tracker: Tracker, name: str, run_id: str | None, folder: Path) -> Path:
    """The best checkpoint of a Run as MLflow has it."""
    tags: Any = tracker.run(run_id).tags if run_id else {}
    if "reused_from" in tags:  # the models stand with the original
        tags = tracker.run(tags["reused_from"]).tags
    uri = tags.get("model_best", "damaged")
    if uri == "damaged":
        raise Refused(f"{name} has no model in MLflow: it has not finished, or was damaged", 1)
    return tracker.download_model(uri, folder)


def _write_classes(model: Classifier, paths: list[Path], out: Path | None) -> None:
    width, found = max(len(str(path)) for path in paths), []
    for path in paths:  # one at a time: they are of many sizes
        row = model.predict(_open(path))
        row.insert(0, "image", str(path))
        found.append(row)
        said, share = str(row["class"][0]), 100 * float(row["probability"][0])
        print(f"{str(path):{width}}  {said}  {share:.1f} %")
    if out:
        pandas.concat(found, ignore_index=True).to_csv(out / _CSV, index=False)


def _write_masks(model: Segmenter, paths: list[Path], out: Path) -> None:
    """`<image>_mask.png` holds the ids of the classes, with their colours as its palette."""
    colours = np.array(model.colours or default_colours(len(model.classes)), dtype=np.uint8)
    width = max(len(str(path)) for path in paths)
    for path in paths:
        pixels = _open(path)
        mask = model.predict(pixels)[0]
        indexed = Image.fromarray(mask)
        indexed.putpalette(colours.tobytes())
        indexed.save(out / f"{path.stem}_mask.png")
        overlay = (1 - _SHARE) * pixels + _SHARE * painted(mask, colours)
        Image.fromarray(overlay.astype(np.uint8)).save(out / f"{path.stem}_overlay.png")
        shares = np.bincount(mask.ravel(), minlength=len(model.classes)) / mask.size
        most = [f"{model.classes[k]} {100 * shares[k]:.1f} %" for k in shares.argsort()[::-1][:3]]
        print(f"{str(path):{width}}  {', '.join(most)}")
