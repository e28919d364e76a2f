"""Finds the pictures that a study is about, and makes them small enough to be sent."""

import base64
import io
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from orchestrator.report_page.page import Picture
from orchestrator.tracking.mlflow_client import MlflowReader
from orchestrator.tracking.run_states import RunState, Submission, artifacts_of

log = logging.getLogger(__name__)
BUDGET = 3_500_000  # letters of all pictures: the whole page stays below 5 MB
_WIDEST, _COLORS = 1000, 128  # px and colors of a picture
_MOST_LABELS, _MOST_MASKS, _MOST_PRODUCED = 6, 2, 4
_TSNE = re.compile(r"plots/tsne_epoch(\d+)\.png")
_MASK = re.compile(r"masks/(.+)_epoch(\d+)\.png")


class _Found(NamedTuple):
    """Names a picture among the artifacts of a Run."""

    run_id: str
    path: str
    title: str
    about: str


def pictures(reader: MlflowReader, submission: Submission) -> tuple[tuple[Picture, ...], str]:
    """Return the pictures of a submission within the budget, and a line on those left out.

    Of each label, its first seed with pictures counts: t-SNE maps after the first and the last
    epoch, masks of two images after the first and the last epoch, what producers made of four.
    """
    found, labels = list(_found(reader, submission)), 0
    kept: list[Picture] = []
    size = left_out = 0
    with tempfile.TemporaryDirectory() as folder:
        for item in found:
            picture = _picture(item, reader, Path(folder)) if size < BUDGET else None
            if picture is None or size + len(picture.uri) > BUDGET:
                left_out += 1
                continue
            size += len(picture.uri)
            kept.append(picture)
    labels = len(_labels(submission)) - _MOST_LABELS
    said = [f"{left_out} pictures are left out, so that the page stays small"] * (left_out > 0)
    if labels > 0:
        said.append(f"pictures of {labels} more labels are in MLflow")
    return tuple(kept), "; ".join(said)


def _labels(submission: Submission) -> Mapping[str, list[RunState]]:
    """Return label → its Runs that are in MLflow, in the order of the plan."""
    labels: dict[str, list[RunState]] = {}
    for item in submission.runs:
        if item.run_id is not None:
            labels.setdefault(item.run.label, []).append(item)
    return labels


def _found(reader: MlflowReader, submission: Submission) -> Iterator[_Found]:
    for items in list(_labels(submission).values())[:_MOST_LABELS]:
        if items[0].run.artifacts:
            yield from _produced(reader, items[0])
            continue
        for item in items:
            of_run = [*_maps(reader, item), *_masks(reader, item)]
            if of_run:
                yield from of_run
                break


def _maps(reader: MlflowReader, item: RunState) -> list[_Found]:
    """Return the t-SNE maps of a Run after its first and its last epoch."""
    run_id = str(item.run_id)
    epochs = {int(m[1]): m[0] for p in reader.files(run_id, "plots") if (m := _TSNE.fullmatch(p))}
    about = (
        "t-SNE map of the features of validation images: each point is an image, its mark is its "
        "class; points that lie together look alike to the network"
    )
    return [
        _Found(run_id, epochs[epoch], f"{item.run.name}: t-SNE map after epoch {epoch}", about)
        for epoch in sorted({min(epochs), max(epochs)} if epochs else ())
    ]


def _masks(reader: MlflowReader, item: RunState) -> list[_Found]:
    """Return the masks of two watched images after the first and the last epoch."""
    run_id, by_image = str(item.run_id), dict[str, dict[int, str]]()
    for path in reader.files(run_id, "masks"):
        if match := _MASK.fullmatch(path):
            by_image.setdefault(match[1], {})[int(match[2])] = path
    about = "an image, its true mask, the mask that the network predicts, and the wrong pixels"
    return [
        _Found(run_id, epochs[epoch], f"{item.run.name}: {image} after epoch {epoch}", about)
        for image, epochs in sorted(by_image.items())[:_MOST_MASKS]
        for epoch in sorted({min(epochs), max(epochs)})
    ]


def _produced(reader: MlflowReader, item: RunState) -> list[_Found]:
    """Return some pictures that a producer has made."""
    paths = [pair for pair in artifacts_of(reader, item) if pair[1].endswith(".png")]
    about = f"what {item.run.trainable} found in an image of the data set"
    return [
        _Found(run_id, path, f"{item.run.label}: image {Path(path).stem}", about)
        for run_id, path in paths[:_MOST_PRODUCED]
    ]


def _picture(found: _Found, reader: MlflowReader, folder: Path) -> Picture | None:
    """Download a picture and make it small; None, and a warning, where it is damaged."""
    path = reader.download_file(found.run_id, found.path, folder)
    try:
        content, width, height = small_png(path)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        log.warning("%s of MLflow run %s is not in the report: %s", found.path, found.run_id, error)
        return None
    uri = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return Picture(found.title, found.about, uri, width, height)


def small_png(path: Path) -> tuple[bytes, int, int]:
    """Return a picture as PNG of at most 1000 px in width and 128 colors, with its width and
    height. Raises OSError or ValueError where it is damaged."""
    with Image.open(path) as image:
        image.load()
        shown = Image.alpha_composite(
            Image.new("RGBA", image.size, "white"), image.convert("RGBA")
        ).convert("RGB")
    if shown.width > _WIDEST:
        height = max(1, round(shown.height * _WIDEST / shown.width))
        shown = shown.resize((_WIDEST, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    shown.quantize(_COLORS).save(out, "PNG", optimize=True)
    return out.getvalue(), shown.width, shown.height
