"""Commands that look: status, compare, up, down, studies. They import neither torch nor data."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from orchestrator.cli.console import ERRORS, show_services
from orchestrator.cli.progress import epochs_done, finding, progress_table
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.reconcile import ending, is_alive, settle
from orchestrator.execution import services
from orchestrator.execution.services import Services
from orchestrator.planning.plan import UnknownPlan
from orchestrator.reporting.comparison import tables, unfinished
from orchestrator.reporting.tables import as_json, as_text
from orchestrator.storage.home import Home, find_home
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_client import Tracker
from orchestrator.tracking.run_states import (
    SearchState,
    Submission,
    comparison,
    load,
    newest,
    records,
)


def status(options: argparse.Namespace) -> int:
    """What runs and what has run, from MLflow."""
    home, settings = find_home(options.home), read_settings(options.mlflow)
    found = services.find(home, settings)
    states = _settled(home, found) if found.mlflow_uri else []
    if options.json:
        print(json.dumps(_status_json(found, states), indent=1))
        return 0
    console = Console(highlight=False)
    show_services(found, console)
    for submission in states:
        console.print(f"\n[bold]{submission.plan['study']}[/bold] {submission.tracked.status}")
        console.print(progress_table(submission.runs, submission.searches, True))
    return 0


def compare(options: argparse.Namespace) -> int:
    """The table that answers the study's question, from MLflow."""
    home, settings = find_home(options.home).create(), read_settings(options.mlflow)
    uri = services.start(home, settings, ERRORS.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    submission = newest(tracker, study_name(options.study))
    if submission is None:
        raise Refused(f"study {options.study} was never submitted to {uri}", 1)
    spec, found = comparison(submission.plan), records(submission)
    made = tables(found, spec)
    if options.json:
        print(json.dumps(as_json(made), indent=1))
    else:
        print(f"{submission.plan['question']}\n\n{as_text(made)}")
        for line in filter(None, map(finding, submission.searches)):
            print(line)
        print(unfinished(found, spec) or "")
    write_comparison(tracker, submission)
    where = (
        f"{uri}/#/experiments/{submission.tracked.experiment_id}/runs/{submission.tracked.run_id}"
    )
    ERRORS.print(f"tables and figures: {where}/artifacts")
    return 0


def _settled(home: Home, found: Services) -> list[Submission]:
    """The newest submission of every study, with what dead processes left behind put right."""
    assert found.mlflow_uri is not None
    tracker = Tracker(found.mlflow_uri)
    states = []
    for tracked in tracker.newest_submissions().values():
        try:
            submission = load(tracker, tracked)
        except UnknownPlan as error:
            ERRORS.print(f"warning: {error}", markup=False)
            continue
        whole = tracked.status == "FINISHED" and submission.finished  # nothing can be wrong with it
        if not (whole or is_alive(submission, home, found.ray)):
            submission = settle(tracker, home, submission, ending(submission, found.ray))
        states.append(submission)
    return states


def _status_json(found: Services, states: Sequence[Submission]) -> dict[str, Any]:
    ray = found.ray
    return {
        "mlflow": {"tracking_uri": found.mlflow_uri},
        "ray": {
            "address": ray.address if ray else None,
            "dashboard_url": ray.dashboard_url if ray else None,
            "token_path": str(ray.token_path) if ray else None,
        },
        "studies": [
            {
                "study": submission.plan["study"],
                "state": submission.tracked.status,
                "runs": [
                    {
                        "stage": item.run.stage,
                        "label": item.run.label,
                        "seed": item.run.seed,
                        "key": item.run.key,
                        "state": item.state,
                        "epoch": epochs_done(item),
                        "mlflow_run_id": item.run_id,
                        "reason": item.reason,
                        "weight_transfer": item.fact("weight_transfer"),
                        "warning": item.fact("warning"),
                    }
                    for item in submission.runs
                ],
                "searches": [_search_json(item) for item in submission.searches],
            }
            for submission in states
        ],
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
