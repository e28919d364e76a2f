"""Commands that only look: status, compare. They load no torch."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.cli.console import MESSAGES, Terminal, say, show_services
from orchestrator.cli.progress import best_trial, epochs_done, progress_table
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.reconcile import ending, is_alive, reconcile
from orchestrator.execution import services
from orchestrator.execution.services import Services
from orchestrator.planning.plan import UnknownPlan
from orchestrator.reporting.comparison import State, Table, unfinished
from orchestrator.reporting.exports import as_csv, as_json
from orchestrator.reporting.tables import as_latex, as_markdown, as_text
from orchestrator.storage.home import Home, find_home
from orchestrator.tracking.comparison_report import compared_tables, write_comparison
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    RunState,
    SearchState,
    Submission,
    comparison,
    load,
    newest_of_any,
    records,
)
from orchestrator.tracking.tags import Tag


def status(options: argparse.Namespace) -> int:
    """Show the state of every study, or all details of one, from MLflow."""
    home, settings = find_home(options.home), read_settings(options.mlflow)
    running = services.find(home, settings)
    name = study_name(options.study) if options.study else None
    listed = _reconciled(home, running, name)
    if name and not listed:
        raise Refused(_unknown_study(name, running, home), 1)
    if options.json:
        say(json.dumps(_status_json(running, listed), indent=1))
        return 0
    console = Terminal(highlight=False)
    show_services(running, console)
    for item in listed:
        if name:
            _show_study(item, str(running.mlflow_uri), console)
        else:
            _show_name(item, console)
            console.print(progress_table(item.submission.runs, item.submission.searches))
    if listed and not name:
        console.print("\nDetails of one study: python -m orchestrator status STUDY", style="dim")
    return 0


@dataclass(frozen=True)
class _Listed:
    """Holds a study as shown: this home's newest submission, else the newest of others."""

    submission: Submission
    owner: str  # name of the home that it belongs to; empty for this one
    others: Mapping[str, TrackedRun]  # home → its newest submission, without the one above
    failure: str = ""  # why a newer submit of this home ended before it had a plan

    @property
    def study(self) -> str:
        """Return the name of the study that was submitted."""
        return str(self.submission.plan["study"])


def _unknown_study(name: str, running: Services, home: Home) -> str:
    if running.trouble:
        return running.trouble
    reader = Tracker(running.mlflow_uri).reader if running.mlflow_uri else None
    if reader and (failed := reader.failed_opening(name, home.name)):
        return f"study {name} ended before it began: {failed.tags.get(Tag.REASON)}"
    if running.mlflow_uri is None:
        return f"MLflow does not run: start it with `up` to see study {name}"
    return f"study {name} was never submitted to {running.mlflow_uri}"


def _show_study(item: _Listed, uri: str, console: Console) -> None:
    """Print all that is known of a study: question, address, searches, every Run in detail."""
    submission = item.submission
    _show_name(item, console)
    question = str(submission.plan["question"]).strip()
    if question:
        console.print(question, markup=False)
    console.print(_address(uri, submission), soft_wrap=True)  # in one piece, to be copied
    for line in filter(None, map(best_trial, submission.searches)):
        console.print(line, markup=False)
    console.print()
    console.print(progress_table(submission.runs, submission.searches, details=True))


def _show_name(item: _Listed, console: Console) -> None:
    whose = f"  (of home {item.owner})" if item.owner else ""
    title = Text.assemble((item.study, "bold"), " ", item.submission.tracked.status, whose)
    console.print()
    console.print(title, soft_wrap=True)
    for owner, tracked in item.others.items():
        line = Text(f"home {owner} has submitted {item.study} too: {tracked.status}", "dim")
        console.print(line, soft_wrap=True)
    if item.failure:
        line = Text(f"the last submit ended before it began: {item.failure}", "red")
        console.print(line, soft_wrap=True)


def _address(uri: str, submission: Submission) -> str:
    """Return the page of a submission in MLflow."""
    tracked = submission.tracked
    return f"{uri}/#/experiments/{tracked.experiment_id}/runs/{tracked.run_id}"


def compare(options: argparse.Namespace) -> int:
    """Print the table that answers the study's question, and store it with its figures."""
    home, settings = find_home(options.home).create(), read_settings(options.mlflow)
    uri = services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    submission, owner = newest_of_any(tracker.reader, study_name(options.study), home.name)
    if submission is None:
        raise Refused(f"study {options.study} was never submitted to {uri}", 1)
    if owner:
        MESSAGES.print(f"this submission belongs to home {owner}", markup=False)
    spec, runs = comparison(submission.plan), records(submission)
    compared = compared_tables(tracker.reader, runs, spec)
    form = "json" if options.json else options.format or "text"
    say(_written(form, compared, submission.plan, unfinished(runs, spec)))
    if form == "text":
        for line in filter(None, map(best_trial, submission.searches)):
            say(line)
        say(unfinished(runs, spec) or "")
    if not owner:
        write_comparison(tracker, submission)
    MESSAGES.print(f"tables and figures: {_address(str(uri), submission)}/artifacts")
    return 0


def _written(
    form: str, compared: Sequence[Table], plan: Mapping[str, Any], note: str | None
) -> str:
    """Return the comparison in one of the forms of `--format`."""
    if form == "json":
        return json.dumps(as_json(compared), indent=1)
    if form == "csv":
        return as_csv(compared).rstrip()
    if form == "latex":
        return as_latex(compared)
    if form == "markdown":
        return as_markdown(compared, plan["question"], plan["study"], note).rstrip()
    return f"{plan['question']}\n\n{as_text(compared)}"


def _reconciled(home: Home, running: Services, study: str | None) -> list[_Listed]:
    """Return every study, or one, with its newest submission in its true state.

    A Run whose process has died is marked so in MLflow first.
    """
    if running.mlflow_uri is None:
        return []
    tracker = Tracker(running.mlflow_uri)
    listed = []
    for name, by_home in tracker.reader.newest_submissions(home.name).items():
        if study not in (None, name):
            continue
        owner = home.name if home.name in by_home else list(by_home)[-1]
        tracked = by_home.pop(owner)
        try:
            submission = load(tracker.reader, tracked)
        except UnknownPlan as error:
            MESSAGES.print(f"warning: {error}", markup=False)
            continue
        complete = tracked.status == State.FINISHED and submission.finished  # no process is left
        if not (complete or is_alive(submission, home, running.ray)):
            submission = reconcile(tracker, home, submission, ending(submission, running.ray))
        failed = tracker.reader.failed_opening(name, home.name)
        reason = failed.tags.get(Tag.REASON, "") if failed else ""
        listed.append(_Listed(submission, "" if owner == home.name else owner, by_home, reason))
    return listed


def _status_json(running: Services, listed: Sequence[_Listed]) -> dict[str, Any]:
    ray = running.ray
    return {
        "mlflow": {"tracking_uri": running.mlflow_uri},
        "ray": {
            "address": ray.address if ray else None,
            "dashboard_url": ray.dashboard_url if ray else None,
            "token_path": str(ray.token_path) if ray else None,
        },
        "studies": [
            {
                "study": item.study,
                "state": item.submission.tracked.status,
                "home": item.owner or None,
                "failure": item.failure or None,
                "other_homes": {owner: run.status for owner, run in item.others.items()},
                "runs": [_run_json(run) for run in item.submission.runs],
                "searches": [_search_json(search) for search in item.submission.searches],
            }
            for item in listed
        ],
    }


def _run_json(item: RunState) -> dict[str, Any]:
    return {
        "stage": item.run.stage,
        "label": item.run.label,
        "seed": item.run.seed,
        "key": item.run.key,
        "state": item.state,
        "epoch": epochs_done(item),
        "mlflow_run_id": item.run_id,
        "reason": item.reason,
        "weight_transfer": item.fact(Tag.WEIGHT_TRANSFER),
        "warning": item.fact(Tag.WARNING),
    }


def _search_json(item: SearchState) -> dict[str, Any]:
    return {
        "stage": item.spec["stage"],
        "state": item.state,
        "trials": item.spec["count"],
        "counts": dict(item.counts),
        "best": item.best,
        "mlflow_run_id": item.tracked.run_id if item.tracked else None,
        "reason": item.reason,
    }
