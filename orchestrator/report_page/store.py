"""Keep the report of a submission as an artifact of its MLflow run, and read it from there while
nothing has changed."""

import hashlib
import importlib
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.planning.plan import json_digest
from orchestrator.tracking.comparison_report import find_answer
from orchestrator.tracking.mlflow_client import TrackedRun, text_if_there
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission
from orchestrator.tracking.tags import Tag

log = logging.getLogger(__name__)
FILE = "report.html"
Prices = Mapping[str, Any]  # `price:` of the settings, by key; empty where there is none


def report_of(tracker: Tracker, submission: Submission, prices: Prices) -> str:
    """Return the report of a submission: what is stored where it was made from the same Runs, else
    what is made now. Raises TrackingError."""
    source = _source(tracker, submission, prices)
    return _stored(tracker, submission.tracked, source) or _made(tracker, submission, prices)


def write_report(tracker: Tracker, submission: Submission, prices: Prices) -> str:
    """Log the report of a submission as `report.html`, and return it. One that was made from the
    same Runs by the same code is kept. Raises TrackingError."""
    run_id = submission.tracked.run_id
    now = replace(submission, tracked=tracker.reader.run(run_id))  # with the comparison's tags
    source = _source(tracker, now, prices)
    stored = _stored(tracker, now.tracked, source)
    if stored is not None:
        return stored
    text = _made(tracker, now, prices)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_text(text, encoding="utf-8")
        tracker.writer.log_files(run_id, Path(folder))
    tracker.writer.set_tags(run_id, {Tag.REPORT: f"{source} {_digest(text)}"})
    return text


def write_report_if_possible(tracker: Tracker, submission: Submission, prices: Prices) -> None:
    """Do what `write_report` does; an error is a warning: a study does not fail by its report."""
    try:
        write_report(tracker, submission, prices)
    except Exception as error:
        name = submission.plan["study"]
        log.warning("no report: %s; `report %s` writes it", error, name, exc_info=error)


def _made(tracker: Tracker, submission: Submission, prices: Prices) -> str:
    gathering = importlib.import_module("orchestrator.report_page.gather")
    facts = importlib.import_module("orchestrator.report_page.facts")
    page = importlib.import_module("orchestrator.report_page.page")
    report = gathering.gather(tracker.reader, submission, facts.Price(**prices))
    text: str = page.render(report)
    return text


def _source(tracker: Tracker, submission: Submission, prices: Prices) -> str:
    """Return the digest of what a report is made from."""
    said = find_answer(tracker.reader, submission).answer
    tags = submission.tracked.tags
    reasons = [[item.reason, item.fact(Tag.WARNING)] for item in submission.runs]
    page = importlib.import_module("orchestrator.report_page.page")
    facts = [tags.get(name) for name in (Tag.GIT_COMMIT, Tag.MACHINES, Tag.VERSIONS, Tag.JOB)]
    return json_digest([said.source, said.finished, page.form_digest(), reasons, facts,
                        dict(prices)])  # fmt: skip


def _stored(tracker: Tracker, tracked: TrackedRun, source: str) -> str | None:
    """Return the stored report; None where it was made from other Runs, or is damaged."""
    made_from, _, digest = tracked.tags.get(Tag.REPORT, "").partition(" ")
    if made_from != source:
        return None
    text = text_if_there(tracker.reader, tracked.run_id, FILE)
    return text if text is not None and _digest(text) == digest else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
