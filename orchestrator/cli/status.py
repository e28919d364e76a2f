"""Commands that only look: status, compare, studies. They load no torch."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.cli.console import MESSAGES, Terminal, say, show_services
from orchestrator.cli.progress import best_trial, epochs_done, progress_table
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.config.yaml_loader import built_in_studies, read_file, study_name
from orchestrator.driver.reconcile import ending, is_alive, reconcile
from orchestrator.execution import services
from orchestrator.execution.services import Services
from orchestrator.planning.plan import UnknownPlan
from orchestrator.reporting.comparison import State, tables, unfinished
from orchestrator.reporting.tables import as_json, as_text
from orchestrator.storage.home import Home, find_home
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    RunState,
    SearchState,
    Submission,
    comparison,
    load,
    newest,
    records,
)
from orchestrator.tracking.tags import Tag


def status(options: argparse.Namespace) -> int:
    """Show the state of every study, or all details of one, from MLflow."""
    home, settings = find_home(options.home), read_settings(options.mlflow)
    running = services.find(home, settings)
    name = study_name(options.study) if options.study else None
    submissions = _reconciled(home, running, name)
    if name and not submissions:
        raise Refused(_unknown_study(name, running), 1)
    if options.json:
        say(json.dumps(_status_json(running, submissions), indent=1))
        return 0
    console = Terminal(highlight=False)
    show_services(running, console)
    for submission in submissions:
        if name:
            _show_study(submission, str(running.mlflow_uri), console)
        else:
            _show_name(submission, console)
            console.print(progress_table(submission.runs, submission.searches))
    if submissions and not name:
        console.print("\nDetails of one study: python -m orchestrator status STUDY", style="dim")
    return 0


def _name_of(submission: Submission) -> str:
    """Return the name of the study that was submitted."""
    return str(submission.plan["study"])


def _unknown_study(name: str, running: Services) -> str:
    if running.mlflow_uri is None:
        return f"MLflow does not run: start it with `up` to see study {name}"
    return f"study {name} was never submitted to {running.mlflow_uri}"


def _show_study(submission: Submission, uri: str, console: Console) -> None:
    """Print all that is known of a study: question, address, searches, every Run in detail."""
    _show_name(submission, console)
    question = str(submission.plan["question"]).strip()
    if question:
        console.print(question, markup=False)
    console.print(_address(uri, submission), soft_wrap=True)  # in one piece, to be copied
    for line in filter(None, map(best_trial, submission.searches)):
        console.print(line, markup=False)
    console.print()
    console.print(progress_table(submission.runs, submission.searches, details=True))


def _show_name(submission: Submission, console: Console) -> None:
    console.print()
    console.print(Text.assemble((_name_of(submission), "bold"), " ", submission.tracked.status))


def _address(uri: str, submission: Submission) -> str:
    """Return the page of a submission in MLflow."""
    tracked = submission.tracked
    return f"{uri}/#/experiments/{tracked.experiment_id}/runs/{tracked.run_id}"


def compare(options: argparse.Namespace) -> int:
    """Print the table that answers the study's question, and store it with its figures."""
    home, settings = find_home(options.home).create(), read_settings(options.mlflow)
    uri = services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    submission = newest(tracker.reader, study_name(options.study))
    if submission is None:
        raise Refused(f"study {options.study} was never submitted to {uri}", 1)
    spec, runs = comparison(submission.plan), records(submission)
    compared = tables(runs, spec)
    if options.json:
        say(json.dumps(as_json(compared), indent=1))
    else:
        say(f"{submission.plan['question']}\n\n{as_text(compared)}")
        for line in filter(None, map(best_trial, submission.searches)):
            say(line)
        say(unfinished(runs, spec) or "")
    write_comparison(tracker, submission)
    MESSAGES.print(f"tables and figures: {_address(str(uri), submission)}/artifacts")
    return 0


def _reconciled(home: Home, running: Services, study: str | None) -> list[Submission]:
    """Return the newest submission of every study, or of one, in its true state.

    A Run whose process has died is marked so in MLflow first.
    """
    if running.mlflow_uri is None:
        return []
    tracker = Tracker(running.mlflow_uri)
    submissions = []
    for name, tracked in tracker.reader.newest_submissions().items():
        if study not in (None, name):
            continue
        try:
            submission = load(tracker.reader, tracked)
        except UnknownPlan as error:
            MESSAGES.print(f"warning: {error}", markup=False)
            continue
        complete = tracked.status == State.FINISHED and submission.finished  # no process is left
        if not (complete or is_alive(submission, home, running.ray)):
            submission = reconcile(tracker, home, submission, ending(submission, running.ray))
        submissions.append(submission)
    return submissions


def _status_json(running: Services, submissions: Sequence[Submission]) -> dict[str, Any]:
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
                "study": _name_of(submission),
                "state": submission.tracked.status,
                "runs": [_run_json(item) for item in submission.runs],
                "searches": [_search_json(item) for item in submission.searches],
            }
            for submission in submissions
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


def studies(options: argparse.Namespace) -> int:
    """List the built-in studies."""
    for name, path in built_in_studies().items():
        say(f"{name:24} {read_file(path)['question']}")
    return 0
