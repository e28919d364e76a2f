"""MLflow's server without its assistant; and its pages in a browser, as the product leaves them."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.drawing.render import draw
from orchestrator.pages import pictures
from orchestrator.pages.addresses import run_address
from orchestrator.pages.mlflow_app import WithoutAssistant
from orchestrator.services import home_services
from orchestrator.storage.home import Home
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_client import TrackedRun, answer_page, pictures_page
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import load
from orchestrator.tracking.tags import Tag
from tests.chromium import Page, page
from tests.orchestrator.pages.studies import EPOCHS, LABELS, PLAN, finished_study
from trainables.record_files import FEATURES, MAPS, mask_file

PAGE = [b"<!doctype html><html><head><title>", b"MLflow</title></head></html>"]


async def served(scope, receive, send) -> None:
    """An application that answers with a page in two parts, and with the headers it got."""
    headers = [(b"Content-Length", b"66"), (b"ETag", b"1"), (b"x-asked", repr(scope).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE[0], "more_body": True})
    await send({"type": "http.response.body", "body": PAGE[1]})


def ask(path: str, **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    """Ask the application for a page. Returns status, headers and body."""
    sent = []

    async def send(message) -> None:
        sent.append(message)

    asked = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "headers": asked}
    asyncio.run(WithoutAssistant(served)(scope, None, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


def test_the_page_gets_its_settings_before_anything_else() -> None:
    status, headers, body = ask("/", if_none_match="1")
    assert status == 200
    assert body.startswith(b"<!doctype html><html><head><script>")
    assert body.endswith(PAGE[0].partition(b"<head>")[2] + PAGE[1])
    assert int(headers[b"content-length"]) == len(body)
    assert b"if-none-match" not in headers[b"x-asked"]  # else it could answer "as you have it"


def test_all_else_is_passed_on_as_it_is_but_the_assistant() -> None:
    assert ask("/api/2.0/mlflow/runs/get", if_none_match="1")[2] == b"".join(PAGE)
    assert b"if-none-match" in ask("/static/main.js", if_none_match="1")[1][b"x-asked"]
    assert ask("/ajax-api/3.0/mlflow/assistant/config") == (404, {}, b"")


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    """The server that the product starts."""
    home = Home(tmp_path_factory.mktemp("pages") / "home").create()
    started = home_services.start(home, MlflowSettings(), lambda text: None, only=("mlflow",))
    yield Tracker(str(started.mlflow_uri))
    home_services.stop(home)


@pytest.fixture(scope="module")
def study(tracker: Tracker) -> TrackedRun:
    submission = finished_study(tracker)
    write_comparison(tracker, load(tracker.reader, submission, PLAN))
    return tracker.reader.run(submission.run_id)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Page]:
    """A tab; what it shows at the end of the test is kept as page.png in the test's folder."""
    with page() as opened:
        yield opened
        opened.picture(tmp_path / "page.png")


def outside(tab: Page, uri: str) -> list[str]:
    """What a page has asked other servers for."""
    inner = ("data:", "blob:", "chrome:", "about:", uri)
    return [address for address in tab.requests if not address.startswith(inner)]


@pytest.mark.slow
def test_the_printed_address_opens_on_the_answer(
    tracker: Tracker, study: TrackedRun, tab: Page
) -> None:
    tab.open(answer_page(tracker.uri, study))
    seen = tab.wait_for("The answer", *(f"Group: {label}" for label in LABELS))
    assert all(f"{label} seed {seed}" in seen for label in LABELS for seed in (0, 1))
    # a bar for each label, and the curves of two charts
    tab.wait_until("document.querySelectorAll('.barlayer .point').length >= 4")
    tab.wait_until("document.querySelectorAll('.scatterlayer .js-line').length >= 8")
    titles = ("test/accuracy", "val/accuracy", "train/loss")
    assert all(title in tab.text() for title in titles)
    assert "MLflow Assistant" not in tab.text()
    assert outside(tab, tracker.uri) == []


@pytest.mark.slow
def test_the_submission_shows_its_table_means_and_plots(
    tracker: Tracker, study: TrackedRun, tab: Page
) -> None:
    tab.open(run_address(tracker.uri, study.experiment_id, study.run_id))
    seen = tab.wait_for("Does rotation pretraining help?", "late_rotation", "mean/test/accuracy/")
    assert "80.00" in seen  # the mean of 0.79 and 0.81
    loaded = "i => i.src.includes('bars.png') && i.naturalWidth > 100"
    tab.wait_until(f"[...document.images].some({loaded})")


@pytest.mark.slow
def test_nothing_that_is_opened_calls_elsewhere_or_offers_the_assistant(
    tracker: Tracker, study: TrackedRun, tab: Page
) -> None:
    for address in (f"{tracker.uri}/", f"{tracker.uri}/#/experiments/{study.experiment_id}"):
        tab.open(address)
        seen = tab.wait_for("digits")
        assert "MLflow Assistant" not in seen
    assert outside(tab, tracker.uri) == []
    with urllib.request.urlopen(f"{tracker.uri}/ajax-api/3.0/mlflow/ui-telemetry") as answer:
        assert b'"disable_ui_telemetry":true' in answer.read().replace(b" ", b"")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{tracker.uri}/ajax-api/3.0/mlflow/assistant/config")


@pytest.mark.slow
def test_the_grid_shows_the_masks_of_three_epochs(
    tracker: Tracker, tmp_path: Path, tab: Page
) -> None:
    submission, plan = study_with_masks(tracker, tmp_path)
    tab.open(pictures_page(tracker.uri, submission, plan))
    (run, *_) = tracker.reader.children(submission)
    tab.wait_for(*(f"watched 1 {part}" for part in pictures.PARTS), run.tags[Tag.LABEL])
    shown = "[...document.images].filter(i => i.src.includes('watched') && i.naturalWidth > 0)"
    tab.wait_until(f"{shown}.length >= 3")  # the picture, its truth, its prediction
    marks = "document.querySelectorAll('[role=slider]')"
    tab.wait_until(f"{marks}.length >= 1")
    assert int(tab.value(f"{marks}[0].getAttribute('aria-valuemax')")) == EPOCHS
    before = tab.value(f"{shown}.map(i => i.src).join()")
    tab.value(f"{marks}[0].focus()")
    for epoch in range(2, EPOCHS + 1):
        tab.press("ArrowRight")
        tab.wait_until(f"{marks}[0].getAttribute('aria-valuenow') == '{epoch}'")
        tab.wait_until(f"{shown}.map(i => i.src).join() != {json.dumps(before)}")
        before = tab.value(f"{shown}.map(i => i.src).join()")


def study_with_masks(tracker: Tracker, folder: Path) -> tuple[TrackedRun, dict[str, Any]]:
    """A study whose first Run has masks of two watched images of three epochs, drawn as the render
    process draws them and sent as the driver sends them."""
    config = {"dataset": "digits", "epochs": EPOCHS, "watch": ["a", "b"]}
    plan = {**PLAN, "study": "masks", "runs": [{**run, "config": config} for run in PLAN["runs"]]}
    submission = finished_study(tracker, plan)
    features = folder / FEATURES
    features.mkdir()
    for epoch in range(1, EPOCHS + 1):
        ids = np.zeros((2, 16, 16), np.uint8)
        ids[:, : 4 * epoch] = 1
        arrays = {
            "images": np.full((2, 16, 16, 3), 40 * epoch, np.uint8), "truth": ids,
            "predicted": ids[:, ::-1], "names": np.array(["a", "b"]),
            "classes": np.array(["ground", "water"]), "colours": np.zeros((0, 3), np.uint8),
        }  # fmt: skip
        np.savez(folder / mask_file(epoch), **arrays)
    assert draw(features) is None
    (run, *_) = tracker.reader.children(submission)
    tracker.writer.log_files(run.run_id, features / MAPS)
    tracker.writer.pages.set_tag(run.run_id, pictures.TAG, "True")
    return submission, plan


def test_the_means_of_the_rows_are_metrics_of_the_submission(
    tmp_path: Path, mlflow_uri: str
) -> None:
    tracker = Tracker(mlflow_uri)
    submission = finished_study(tracker)
    write_comparison(tracker, load(tracker.reader, submission, PLAN))
    metrics = tracker.reader.run(submission.run_id).metrics
    assert metrics == pytest.approx(
        {f"mean/test/accuracy/{label}": 0.8 + 0.04 * n for n, label in enumerate(LABELS)}
    )
