"""Write the comparison of a submission as artifacts of its MLflow run, and read what it says from
there while nothing has changed."""

import importlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from orchestrator.pages.notes import mean_metrics, submission_note
from orchestrator.planning.code_version import tree_version
from orchestrator.planning.plan import json_digest
from orchestrator.reporting.comparison import State
from orchestrator.tracking.mlflow_client import (
    MlflowReader,
    TrackedRun,
    answer_page,
    pictures_page,
    text_if_there,
)
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    SearchState,
    Submission,
    artifacts_of,
    comparison,
    records,
)
from orchestrator.tracking.tags import Tag

_FILE = "tables/answer.json"
_TABLES = {"tables/comparison.csv": "csv", "tables/comparison.md": "markdown"}


@dataclass(frozen=True)
class Answer:
    """Holds what a comparison says, as `compare` prints it.

    forms: the tables under the names of `--format`. means: metric of the submission → mean of a
    row. note: names the Runs that no row counts; empty
    where all count. source, finished: digests of what it was made from, see `_source` and
    `finished_digest`. files: the artifacts that belong to it.
    """

    forms: dict[str, str]
    means: dict[str, float]
    note: str
    searches: list[dict[str, Any]]  # the fields of each `SearchState`, without `tracked`
    files: list[str]
    source: str
    finished: str

    def search_states(self) -> list[SearchState]:
        """Return the searches of the study, as they were when the comparison was made."""
        return [SearchState(**{**item, "state": State(item["state"])}, tracked=None)
                for item in self.searches]  # fmt: skip


class Found(NamedTuple):
    """Holds an answer, and whether it is stored with all that belongs to it."""

    answer: Answer
    is_stored: bool


def stored_answer(reader: MlflowReader, tracked: TrackedRun) -> Answer | None:
    """Return what is stored of a FINISHED submission of many Runs, without reading its Runs; None
    where they must be read: see `find_answer`."""
    finished = unchanged_digest(reader, tracked)
    stored = _stored(reader, tracked) if finished else None
    is_true = stored is not None and stored.finished == finished
    return stored if stored and is_true and _has_files(reader, tracked, stored) else None


def unchanged_digest(reader: MlflowReader, tracked: TrackedRun) -> str:
    """Return what `finished_digest` does of a submission that has FINISHED and that no Run was
    deleted of since: what was made with the same digest is still true. Else empty."""
    finished = finished_digest(tracked) if tracked.status == State.FINISHED else ""
    return "" if finished and reader.has_deleted(tracked) else finished


def find_answer(reader: MlflowReader, submission: Submission) -> Found:
    """Return what a submission's comparison says: what is stored where it was made from the same
    Runs by the same code, else what is computed now."""
    source, tracked = _source(reader, submission), submission.tracked
    finished = finished_digest(tracked) if submission.finished else ""
    stored = _stored(reader, tracked)
    if stored is not None and (stored.source, stored.finished) == (source, finished):
        return Found(stored, _has_files(reader, tracked, stored))
    return Found(_answer(reader, submission, source, finished), False)


def write_comparison(tracker: Tracker, submission: Submission, found: Found | None = None) -> None:
    """Log what a comparison says, its tables as CSV and Markdown, and its plots as PNG. found: what
    `find_answer` returns for the submission.

    A comparison that was made from the same figures by the same code is kept as it is: to fetch and
    draw a thousand curves takes a while.
    """
    reader, writer, run_id = tracker.reader, tracker.writer, submission.tracked.run_id
    said, is_stored = found or find_answer(reader, submission)
    if is_stored:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, text = Path(temporary), json.dumps(vars(said))
        (folder / "tables").mkdir()
        (folder / _FILE).write_text(text, encoding="utf-8")
        for file, form in _TABLES.items():
            (folder / file).write_text(f"{said.forms[form]}\n", encoding="utf-8")
        _drawing().draw_plots(reader, submission, folder / "plots")
        writer.log_files(run_id, folder)
    _show(tracker, submission, said)
    writer.set_tags(run_id, {Tag.COMPARISON: _digest(text)})


def _show(tracker: Tracker, submission: Submission, said: Answer) -> None:
    """Log what MLflow's pages show of an answer: means, and the notes of submission and study."""
    writer, tracked, markdown = tracker.writer, submission.tracked, said.forms["markdown"]
    run_id = tracked.run_id
    if said.means:
        writer.log_epochs(run_id, [{"epoch": 0, **said.means}], {})
    plots = [file for file in said.files if file.endswith(".png")]
    pages = {  # without a server's name, which differs between those who look
        "All charts": answer_page(".", tracked),
        "Pictures over epochs": pictures_page(".", tracked, submission.plan),
    }
    writer.pages.describe(run_id, submission_note(markdown, run_id, plots, pages))
    title = tracked.tags.get(Tag.JOB, run_id)
    writer.pages.describe_study(tracked.experiment_id, run_id, title, markdown)


def _answer(reader: MlflowReader, submission: Submission, source: str, finished: str) -> Answer:
    forms, note = _drawing().forms_of(reader, submission)
    searches = [{name: value for name, value in vars(item).items() if name != "tracked"}
                for item in submission.searches]  # fmt: skip
    return Answer(
        forms=forms,
        means=mean_metrics(json.loads(forms["json"])["rows"]),
        note=note,
        searches=searches,
        files=[*_TABLES, *(f"plots/{name}.png" for name in comparison(submission.plan).plots)],
        source=source,
        finished=finished,
    )


def _drawing() -> ModuleType:
    """Return what makes tables and plots; a command that finds them made does not load it."""
    return importlib.import_module("orchestrator.tracking.comparison_data")


def _has_files(reader: MlflowReader, tracked: TrackedRun, stored: Answer) -> bool:
    """Tell whether the files of a comparison are there; they may have been deleted."""
    folders = {file.partition("/")[0] for file in stored.files}
    there = {file for folder in folders for file in reader.files(tracked.run_id, folder)}
    return there.issuperset(stored.files)


def _stored(reader: MlflowReader, tracked: TrackedRun) -> Answer | None:
    """Return what the submission's file says; None where it has none, where another version has
    written it, or where it is damaged."""
    digest = tracked.tags.get(Tag.COMPARISON)
    if not digest:
        return None
    text = text_if_there(reader, tracked.run_id, _FILE)
    return Answer(**json.loads(text)) if text and _digest(text) == digest else None


def _digest(text: str) -> str:
    """Return the digest of a file and of the names of the fields that it has."""
    return json_digest([[item.name for item in fields(Answer)], text])


def _source(reader: MlflowReader, submission: Submission) -> str:
    """Return the digest of what a comparison is made from: the code, the plan, and every Run's
    state, last figures and artifacts. Nothing else of a Run changes once it is FINISHED."""
    runs: list[Any] = []
    for item, record in zip(submission.runs, records(submission), strict=True):
        runs.append([item.state, item.run_id, record.facts])
        if item.tracked is not None:
            facts = [item.fact(name) for name in (Tag.EPOCHS, Tag.FIGURES, Tag.PREDICTIONS)]
            runs[-1] += [dict(item.tracked.metrics), facts, artifacts_of(reader, item)]
    return json_digest([tree_version(), submission.plan, runs])


def finished_digest(tracked: TrackedRun) -> str:
    """Return the digest that stands for the code, the plan and every Run of a submission whose Runs
    have all FINISHED: see `store_finished`. Empty where there is none."""
    parts: Mapping[str, str] = tracked.tags
    names = (Tag.FINISHED, Tag.PLAN_VERSION, Tag.PLAN)
    if not parts.get(Tag.FINISHED):
        return ""
    return json_digest([tree_version(), *(parts.get(name, "") for name in names)])
