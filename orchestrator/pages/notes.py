"""Write the notes that MLflow shows: the answer of a submission beside its run, those of a study
beside its experiment, the newest first, and how to serve a model beside the registered one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

LENGTH = 5000  # letters of a note: what every version of MLflow takes
_LEAST = 500  # that an answer needs beside what a person wrote
# begins a submission's part of an experiment's note; the page shows no comments
_MARK = re.compile(r"<!-- submission (?P<id>\w+) -->\n")
_OWN = "<!-- end of submissions -->\n"  # what a person wrote stands below
_OTHER_SIGNS = re.compile(r"[^\w.\- /]+", re.ASCII)  # that MLflow takes in no metric's name


def submission_note(
    markdown: str, run_id: str, plots: Sequence[str], pages: Mapping[str, str]
) -> str:
    """Return the note of a submission: its table and verdict, then links and its plots. plots:
    paths of its artifacts. pages: title → address; those without an address are left out."""
    links = [f"[{title}]({address})" for title, address in pages.items() if address]
    parts = [" · ".join(links)] if links else []
    parts += [_picture(run_id, path) for path in plots]
    below = "\n\n".join(["", *parts]) if parts else ""
    return shortened(markdown, LENGTH - len(below)) + below


def _picture(run_id: str, path: str) -> str:
    query = urlencode({"path": path, "run_uuid": run_id})
    return f"![{path.rpartition('/')[2]}](get-artifact?{query})"


def experiment_note(before: str, run_id: str, title: str, markdown: str) -> str:
    """Return the note of a study's experiment with a submission's answer on top. before: the note
    so far; what a person wrote into it stays, below. title: of the submission's part.

    What is too long for MLflow leaves at the end, the oldest submissions first. A person's text
    that leaves no room is not touched.
    """
    own, parts = _parts(before)
    parts = {run_id: f"## {title}\n\n{markdown}"} | {k: v for k, v in parts.items() if k != run_id}
    below = f"{_OWN}{own}" if own else ""
    room = LENGTH - len(below)
    if room < _LEAST:
        return before
    note = ""
    for key, text in parts.items():
        part = f"<!-- submission {key} -->\n{text.strip()}\n\n"
        if note and len(note) + len(part) > room:
            break
        note += part
    return shortened(note, room) + below


def _parts(note: str) -> tuple[str, dict[str, str]]:
    """Return what a person wrote into a note, and submission → its part, in their order."""
    begin, *rest = _MARK.split(note)
    parts = dict(zip(rest[::2], rest[1::2], strict=True))
    own = [begin.strip()]
    if parts:
        last = next(reversed(parts))
        parts[last], _, below = parts[last].partition(_OWN)
        own.append(below.strip())
    return "\n\n".join(filter(None, own)), parts


def serving_note(uri: str, model: str, about: str) -> str:
    """Return how to serve a registered model and what to send to it. uri: of the MLflow server;
    model: its address, such as `models:/digits.full@best`; about: what the model is."""
    return f"""{about}

Serve it where this project is installed:

    MLFLOW_TRACKING_URI={uri} mlflow models serve -m {model} --env-manager local --port 5001

Send pictures of any size as their pixels, (pictures, height, width, channels). Those of RGB are
whole numbers from 0 to 255; those of other channels are the numbers of their files:

    import numpy, requests
    from PIL import Image

    pixels = numpy.asarray(Image.open("new.jpg").convert("RGB"))
    url, body = "http://127.0.0.1:5001/invocations", {{"inputs": [pixels.tolist()]}}
    print(requests.post(url, json=body).json()["predictions"])

A classifier answers with class and probabilities of each picture. A segmentation answers with a
mask of each picture: for every pixel the place of its class, from 0.
"""


def shortened(markdown: str, length: int) -> str:
    """Return a text of at most so many letters, cut after a whole line."""
    if len(markdown) <= length:
        return markdown
    last = "\n\n(shortened; tables/comparison.md has all)"
    kept = markdown[: max(0, length - len(last))].rpartition("\n")[0]
    return kept + last


def mean_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the means of table rows as metrics of the submission, `mean/<metric>/<label>`. rows:
    as `as_json` writes them. Signs that MLflow takes in no name become spaces; of labels that look
    alike then the first one counts."""
    means: dict[str, float] = {}
    for row in rows:
        if row["mean"] is not None:
            label = _OTHER_SIGNS.sub(" ", str(row["label"])).strip()
            means.setdefault(f"mean/{row['metric']}/{label}", float(row["mean"]))
    return means
