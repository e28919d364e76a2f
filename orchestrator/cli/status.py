"""Commands that only look: status, compare. They load no torch."""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text
from typing_extensions import TypedDict

from orchestrator.cli.console import MESSAGES, Terminal, say, settings_of, show_services
from orchestrator.cli.progress import (
    best_trial,
    finished_table,
    follow,
    progress_table,
)
from orchestrator.config.errors import Refused
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.followed import epochs_done
from orchestrator.driver.reconcile import ending, is_alive, jobs_of, reconcile
from orchestrator.notify.notifier import send_waiting
from orchestrator.planning.plan import UnknownPlan
from orchestrator.reporting.comparison import State
from orchestrator.services import home_services
from orchestrator.services.record import Services
from orchestrator.storage.files import read_json, write_json
from orchestrator.storage.home import Home, find_home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.comparison_report import (
    Answer,
    find_answer,
    finished_digest,
    stored_answer,
    unchanged_digest,
    write_comparison,
)
from orchestrator.tracking.mlflow_client import MlflowReader, TrackedRun, answer_page, pictures_page
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    RunState,
    SearchState,
    Submission,
    find_newest,
    load,
)
from orchestrator.tracking.tags import Tag

log = logging.getLogger(__name__)


def status(options: argparse.Namespace) -> int:
    """Show the state of every study, or all details of one, from MLflow."""
    home, settings = find_home(options.home), settings_of(options)
    running = home_services.find(home, settings)
    name = study_name(options.study) if options.study else None
    listed = _reconciled(home, running, name, details=bool(name and not options.json))
    send_waiting(home.root)  # what a driver that died has left, and what was found just now
    if name and not listed:
        raise Refused(_unknown_study(name, running, home), 1)
    if options.watch:
        return _follow(home, running, listed)
    if options.json:
        say(json.dumps(_status_json(running, listed), indent=1))
        return 0
    console = Terminal(highlight=False)
    show_services(running, console)
    for item in listed:
        _show_name(item, str(running.mlflow_uri), console)
        if item.submission is None:
            console.print(finished_table(len(item.runs)))
        elif name:
            _show_study(item.submission, str(running.mlflow_uri), console)
        else:
            console.print(progress_table(item.submission.runs, item.submission.searches))
    if listed and not name:
        console.print("\nDetails of one study: python -m orchestrator status STUDY", style="dim")
    return 0


def _follow(home: Home, running: Services, listed: Sequence["_Listed"]) -> int:
    """Follow the study that runs, as `submit` does, until it ends. Returns 0 where all Runs have
    finished, else 1."""
    alive = [item.submission for item in listed if item.submission and not item.owner
             and item.tracked.status == State.RUNNING]  # fmt: skip
    names = ", ".join(str(submission.plan["study"]) for submission in alive)
    if len(alive) != 1:
        what = f"several run ({names}): name one" if alive else "no study of this home runs"
        raise Refused(f"status --watch follows one study: {what}", 1)
    jobs = jobs_of(alive[0], running.ray)
    if jobs is None:
        raise Refused(f"the Ray cluster of {names} does not answer", 1)
    tracker, job = Tracker(str(running.mlflow_uri)), alive[0].tracked.tags[Tag.JOB]
    try:
        last = follow(jobs, tracker, names, job, Store(home.store), Terminal(highlight=False))
    except KeyboardInterrupt:
        MESSAGES.print("stopped watching; the study goes on")
        return 130
    return 0 if last is not None and last.finished else 1


@dataclass(frozen=True)
class _Listed:
    """Holds a study as shown: this home's newest submission, else the newest of others."""

    study: str
    tracked: TrackedRun
    # None where it has finished, and `runs` is all that is known: see `_kept_runs`
    submission: Submission | None
    runs: Sequence[Mapping[str, Any]]  # as JSON
    owner: str  # name of the home that it belongs to; empty for this one
    others: Mapping[str, TrackedRun]  # home → its newest submission, without the one above
    failure: str = ""  # why a newer submit of this home ended before it had a plan

    @property
    def waits(self) -> str:
        """Return what its driver waits for on the cluster; empty when it does not."""
        running = self.tracked.status == State.RUNNING
        return self.tracked.tags.get(Tag.WAITS, "") if running else ""

    @classmethod
    def of(
        cls,
        submission: Submission,
        owner: str = "",
        others: Mapping[str, TrackedRun] | None = None,
        failure: str = "",
    ) -> "_Listed":
        """Return what is shown of a submission."""
        runs, study = [_run_json(run) for run in submission.runs], str(submission.plan["study"])
        return cls(study, submission.tracked, submission, runs, owner, others or {}, failure)


class _Kept(TypedDict):
    """Describes what is kept in the home of a finished study of many Runs."""

    made_from: str
    runs: list[dict[str, Any]]  # as JSON


def _unknown_study(name: str, running: Services, home: Home) -> str:
    if running.trouble:
        return running.trouble
    reader = Tracker(running.mlflow_uri).reader if running.mlflow_uri else None
    if reader and (failed := reader.failed_opening(name, home.name)):
        return f"study {name} ended before it began: {failed.tags.get(Tag.REASON)}"
    if running.mlflow_uri is None:
        return f"MLflow does not run: start it with `up` to see study {name}"
    return f"study {name} was never submitted to {running.mlflow_uri}"


def _show_study(submission: Submission, uri: str, console: Console) -> None:
    """Print all that is known of a study: question, searches, every Run in detail."""
    if pictures := pictures_page(uri, submission.tracked, submission.plan):
        console.print(f"pictures over epochs: {pictures}", soft_wrap=True, markup=False)
    question = str(submission.plan["question"]).strip()
    if question:
        console.print(question, markup=False)
    for line in filter(None, map(best_trial, submission.searches)):
        console.print(line, markup=False)
    console.print()
    console.print(progress_table(submission.runs, submission.searches, details=True))


def _show_name(item: _Listed, uri: str, console: Console) -> None:
    """Print which study it is, where its answer is, and what else is known of its submissions."""
    whose = f"  (of home {item.owner})" if item.owner else ""
    waits = item.waits
    state = "WAITING" if waits else item.tracked.status
    title = Text.assemble((item.study, "bold"), " ", state, whose)
    console.print()
    console.print(title, soft_wrap=True)
    if waits:
        console.print(Text(waits, "yellow"), soft_wrap=True)
    # in one piece, to be copied
    console.print(answer_page(uri, item.tracked), soft_wrap=True, markup=False)
    for owner, tracked in item.others.items():
        line = Text(f"home {owner} has submitted {item.study} too: {tracked.status}", "dim")
        console.print(line, soft_wrap=True)
    if item.failure:
        line = Text(f"the last submit ended before it began: {item.failure}", "red")
        console.print(line, soft_wrap=True)


def compare(options: argparse.Namespace) -> int:
    """Print the table that answers the study's question, and store it with its figures."""
    said, tracked, tracker = answer_of(options)
    _show_answer(said, "json" if options.json else options.format or "text")
    page = answer_page(tracker.uri, tracked)
    MESSAGES.print(f"the answer, with charts: {page}", markup=False)
    return 0


def answer_of(options: argparse.Namespace) -> tuple[Answer, TrackedRun, Tracker]:
    """Return what the newest submission of a study answers, and store it. Raises Refused."""
    home, settings = find_home(options.home).create(), settings_of(options)
    uri = home_services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker = Tracker(str(uri))
    tracked, owner = find_newest(tracker.reader, study_name(options.study), home.name)
    if tracked is None:
        raise Refused(f"study {options.study} was never submitted to {uri}", 1)
    if owner:
        MESSAGES.print(f"this submission belongs to home {owner}", markup=False)
    said = stored_answer(tracker.reader, tracked)
    if said is None:
        submission = load(tracker.reader, tracked)
        found = find_answer(tracker.reader, submission)
        said = found.answer
        if not owner:
            write_comparison(tracker, submission, found)
    return said, tracked, tracker


def _show_answer(said: Answer, form: str) -> None:
    """Print a comparison. form: of `--format`."""
    say(said.forms[form])
    if form == "text":
        for line in filter(None, map(best_trial, said.search_states())):
            say(line)
        say(said.note)


def _reconciled(
    home: Home, running: Services, study: str | None, details: bool = True
) -> list[_Listed]:
    """Return every study, or one, with its newest submission in its true state. details: with the
    submission in any case.

    A Run whose process has died is marked so in MLflow first.
    """
    if running.mlflow_uri is None:
        return []
    tracker = Tracker(running.mlflow_uri, home.artifacts)
    known = tracker.reader.newest_submissions(home.name)
    wanted = {name: by_home for name, by_home in known.items() if study in (None, name)}
    failed = tracker.reader.failed_openings(home.name, wanted)
    listed = []
    for name, by_home in wanted.items():
        owner = home.name if home.name in by_home else list(by_home)[-1]
        tracked = by_home.pop(owner)
        whose = "" if owner == home.name else owner
        reason = failed[name].tags.get(Tag.REASON, "") if name in failed else ""
        runs = None if details else _kept_runs(tracker.reader, home, name, tracked)
        if runs is not None:
            listed.append(_Listed(name, tracked, None, runs, whose, by_home, reason))
            continue
        try:
            submission = load(tracker.reader, tracked)
        except UnknownPlan as error:
            MESSAGES.print(f"warning: {error}", markup=False)
            continue
        complete = tracked.status == State.FINISHED and submission.finished  # no process is left
        if not (complete or is_alive(submission, home, running.ray)):
            submission = reconcile(tracker, home, submission, ending(submission, running.ray))
        listed.append(_Listed.of(submission, whose, by_home, reason))
        if complete and not submission.searches:
            _keep_runs(home, listed[-1])
    return listed


def _kept_runs(
    reader: MlflowReader, home: Home, study: str, tracked: TrackedRun
) -> list[dict[str, Any]] | None:
    """Return the Runs of a finished submission of many, as they were shown before; None where they
    were not, or where something may have changed since."""
    digest = unchanged_digest(reader, tracked)
    kept = read_json(home.listings / f"{study}.json", _Kept) if digest else None
    same = kept is not None and kept["made_from"] == f"{tracked.run_id} {digest}"
    return kept["runs"] if kept and same else None


def _keep_runs(home: Home, item: _Listed) -> None:
    tracked, digest = item.tracked, finished_digest(item.tracked)
    if digest and home.root.is_dir():
        kept = {"made_from": f"{tracked.run_id} {digest}", "runs": item.runs}
        try:
            home.listings.mkdir(mode=0o700, exist_ok=True)
            write_json(home.listings / f"{item.study}.json", kept)
        except OSError as error:  # a home that cannot be written: the next call reads all again
            log.debug("the Runs of %s are not kept: %s", item.study, error)


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
                "state": item.tracked.status,
                "home": item.owner or None,
                "failure": item.failure or None,
                "waits": item.waits or None,
                "address": answer_page(str(running.mlflow_uri), item.tracked),
                "other_homes": {owner: run.status for owner, run in item.others.items()},
                "runs": item.runs,
                "searches": [_search_json(s) for s in item.submission.searches]
                if item.submission
                else [],
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
