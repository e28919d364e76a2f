"""Name the pictures that MLflow shows over the epochs of a Run, with a slider: what its client's
`log_image(key, step)` would write."""

import uuid
from collections.abc import Mapping
from typing import Any

FOLDER = "images"  # among a run's artifacts
TAG = "mlflow.loggedImages"  # of a run that has such pictures
TSNE = "t-SNE"
VIEWS = "views"  # of a few training images, what a training without labels compares
PARTS = ("image", "truth", "prediction")  # of a watched image
_WATCHED = 3  # images that are watched where a study names none, as `watched_rows` chooses
_MOST = 8  # watched images that the view shows
_NAMES = uuid.UUID("5f3c1c0e-8f0a-4a58-9f3e-9d3f7c1b2a10")


def mask_key(number: int, part: str) -> str:
    """Return the key of a part of a watched image. number: from 1, in the order of `watch`."""
    return f"watched {number} {part}"


def files_of(key: str, epoch: int) -> tuple[str, str]:
    """Return the names of the picture (PNG) and of its small copy (WebP) within `FOLDER`. They are
    the same each time, so that nothing is there twice."""
    name = uuid.uuid5(_NAMES, f"{key} {epoch}")
    stem = f"{key}+step+{epoch}+timestamp+{epoch}+{name}"
    return f"{stem}.png", f"{stem}+compressed.webp"


def picture_charts(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return title of a chart → keys of its pictures, of what the Runs of a plan may draw. plan: as
    `to_plain` writes it."""
    watched = [run["config"]["watch"] for run in plan["runs"] if "watch" in run["config"]]
    most = min(_MOST, max((len(names) or _WATCHED for names in watched), default=0))
    charts = {f"watched image {number}": [mask_key(number, part) for part in PARTS]
              for number in range(1, most + 1)}  # fmt: skip
    if any("tsne_epochs" in run["config"] for run in plan["runs"]):
        charts["t-SNE of the validation images"] = [TSNE]
    if any("views" in run["config"] for run in plan["runs"]):
        charts["training images and their two views"] = [VIEWS]
    return charts
