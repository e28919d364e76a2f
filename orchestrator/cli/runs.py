"""Commands for a submitted study and its Runs: report, stop, logs; and the names by which commands
ask for a Run. They load no torch."""

import argparse
import logging
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

from orchestrator.cli.console import MESSAGES, say, settings_of
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_own_settings
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.reconcile import ending, is_silent, jobs_of, reconcile, silence
from orchestrator.execution.ray_jobs import Jobs
from orchestrator.planning.plan import UnknownPlan
from orchestrator.report_page.files import FORMS, write_file, write_pdf
from orchestrator.report_page.store import report_of, write_report
from orchestrator.reporting.comparison import State
from orchestrator.services import home_services
from orchestrator.services.record import RayService
from orchestrator.storage.home import LOCAL, Home, find_home
from orchestrator.storage.run_log import named_logs
from orchestrator.storage.run_records import Store
from orchestrator.tracking.comparison_report import find_answer
from orchestrator.tracking.mlflow_client import MlflowReader, runs_named
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission, load, newest, newest_of_any
from orchestrator.tracking.tags import Tag
from trainables.config import as_plain

log = logging.getLogger(__name__)
_MOST_NAMES = 8  # names of Runs in an error


def report(options: argparse.Namespace) -> int:
    """Write the report of a study as a file: a page, a PDF of it, or its tables for LaTeX."""
    home, settings = find_home(options.home).create(), settings_of(options)
    prices = as_plain(read_own_settings(options.mlflow).price)
    uri = home_services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker, study = Tracker(str(uri)), study_name(options.study)
    submission, owner = newest_of_any(tracker.reader, study, home.name)
    if submission is None:
        raise Refused(f"study {study} was never submitted to {uri}", 1)
    form = options.format or "html"
    path = Path(options.out or f"{study}.{FORMS[form]}")
    if form == "latex":
        text = find_answer(tracker.reader, submission).answer.forms["latex"] + "\n"
    else:
        write = report_of if owner else write_report  # that of another home is not touched
        text = write(tracker, submission, prices)
    if form == "pdf":
        write_pdf(text, path)
    else:
        write_file(path, text)
    say(f"wrote {path}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Stop a study's job. Its checkpoints stay, and submitting it again goes on from them."""
    home, study = find_home(options.home), study_name(options.study)
    services_up = home_services.find(home, settings_of(options))
    tracker = Tracker(services_up.mlflow_uri, home.artifacts) if services_up.mlflow_uri else None
    submission, owner = _to_be_stopped(tracker, study, home, options.any_home)
    ray = services_up.ray
    jobs = jobs_of(submission, ray) if submission else ray and Jobs(ray)
    if not jobs:
        if tracker and submission and _is_lost(submission):
            why = ending(submission, ray)
            reconcile(tracker, home, submission, why)
            say(f"{study} is marked as ended: {why}; submit it again to go on")
            return 0
        raise Refused(_unreachable(study, submission, ray), 1)
    job_id = _running_job(jobs, study, home, submission, owner)
    if job_id:
        jobs.stop(job_id)
    elif tracker and submission is None:
        raise Refused(f"study {study} was never submitted to {services_up.mlflow_uri}", 1)
    if tracker and submission:
        # the job may have opened a new one
        last = newest(tracker.reader, study, owner or home.name) or submission
        last = reconcile(tracker, home, last, jobs.ending(last.tracked.tags[Tag.JOB]))
        done = sum(item.state == State.FINISHED for item in last.runs)
        MESSAGES.print(f"{done} of {len(last.runs)} Runs are done")
        for search in last.searches:
            MESSAGES.print(
                f"{search.ended} of {search.spec['count']} trials of {search.name} have ended"
            )
    say(f"stopped {study}: submit it again to go on" if job_id else f"{study} was not running")
    return 0


def _to_be_stopped(
    tracker: Tracker | None, study: str, home: Home, any_home: bool
) -> tuple[Submission | None, str]:
    """Return a home's submission of a study; of another home, with its name, where the home has
    none and `--any-home` allows it. Raises Refused where it would have to."""
    if tracker is None:
        return None, ""
    if own := newest(tracker.reader, study, home.name):
        return own, ""
    submission, owner = newest_of_any(tracker.reader, study, home.name)
    if submission is None:
        return None, ""
    if submission.tracked.tags.get(Tag.CLUSTER, LOCAL) == LOCAL:
        raise Refused(f"study {study} runs on the machine of home {owner}: stop it there", 1)
    if not any_home:
        raise Refused(
            f"study {study} was submitted by home {owner}: `stop {study} --any-home` stops it", 1
        )
    return submission, owner


def _running_job(
    jobs: Jobs, study: str, home: Home, submission: Submission | None, owner: str
) -> str:
    """Return the id of a study's job that has not ended; empty where there is none."""
    if not owner and (running := jobs.running(study, home)):
        return running.job_id
    job = submission.tracked.tags[Tag.JOB] if submission else ""
    return job if job and jobs.alive(job) else ""


def _is_lost(submission: Submission) -> bool:
    """Return whether the driver is on a cluster that is gone: it does not answer, and the driver
    has given no sign of life for long, or never did."""
    elsewhere = submission.tracked.tags.get(Tag.CLUSTER, LOCAL) != LOCAL
    return elsewhere and (silence(submission) is None or is_silent(submission))


def _unreachable(study: str, submission: Submission | None, ray: RayService | None) -> str:
    if submission is None or submission.tracked.tags.get(Tag.CLUSTER, LOCAL) == LOCAL:
        return f"the Ray cluster of {study} does not answer: nothing was stopped"
    return f"{study} was not stopped: {ending(submission, ray)}"


def logs(options: argparse.Namespace) -> int:
    """Print a Run's log of every attempt and every worker, also of a Run that has failed."""
    home = find_home(options.home).create()
    settings = settings_of(options)
    uri = home_services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker, store = Tracker(str(uri)), Store(home.store)
    key, run_id = find_run(tracker.reader, options.run, home.name)
    with tempfile.TemporaryDirectory() as folder:
        files = store.run(key).logs()
        if not files and run_id:  # trained on another machine
            files = named_logs(tracker.reader.download(run_id, "logs", Path(folder)))
        if not files:
            raise Refused(_no_logs(tracker.reader, options.run, run_id), 1)
        for (attempt, rank), path in files.items():
            say(f"==> attempt {attempt}, rank {rank} <==")
            say(path.read_text(encoding="utf-8", errors="replace"))
    return 0


def _no_logs(reader: MlflowReader, name: str, run_id: str | None) -> str:
    """Return why a Run has no logs that this machine can read."""
    run = reader.run(run_id) if run_id else None
    if run is None or run.status == "SCHEDULED":
        return f"no logs yet for {name}: it has not started"
    if run.status == State.RUNNING:
        return (
            f"no logs yet for {name}: it trains on another machine (attempt "
            f"{run.tags.get(Tag.ATTEMPT, '1')}), which sends its log to MLflow when it ends"
        )
    return f"no logs for {name}: MLflow has none, and its home is on another machine"


class Named(NamedTuple):
    """A Run or a trial under the names by which a command asks for it."""

    label: str
    seed: str
    key: str
    run_id: str | None


def find_run(reader: MlflowReader, name: str, home: str) -> tuple[str, str | None]:
    """Return key and MLflow run of a Run or a trial: of the home's newest submissions, else of
    those of others, else, by key or id, of earlier submissions.

    name: `study/label/seed`, the beginning of a key, or an MLflow run's id; home: the home's name.
    Raises Refused where no Run or several have that name.
    """
    if "/" in name:
        return _find_by_label(reader, name, home)
    ids = _in_newest(reader, name, home)
    if not ids and re.fullmatch("[0-9a-f]+", name):
        for run in runs_named(reader, name):
            ids.setdefault(run.tags[Tag.RUN_KEY], run.run_id)
    if len(ids) > 1:
        raise Refused(f"{name} is the beginning of several keys: {', '.join(ids)}", 1)
    if not ids:
        raise Refused(f"no Run {name}: give study/label/seed, a key or an MLflow run id", 1)
    return next(iter(ids.items()))


def _in_newest(reader: MlflowReader, name: str, home: str) -> dict[str, str | None]:
    """Return key → MLflow run of the Runs and trials of newest submissions with this beginning of
    a key, or this id of an MLflow run."""
    ids: dict[str, str | None] = {}  # key → MLflow run
    newest_ones = reader.newest_submissions(home).values()
    own = [by_home[home] for by_home in newest_ones if home in by_home]
    others = [run for by_home in newest_ones for owner, run in by_home.items() if owner != home]
    for tracked in (*own, *others):
        try:
            runs = _named(reader, load(reader, tracked))
        except UnknownPlan as error:
            log.warning("%s", error)
            continue
        for item in runs:
            if name and (item.key.startswith(name) or item.run_id == name):
                ids[item.key] = ids.get(item.key) or item.run_id
    return ids


def _find_by_label(reader: MlflowReader, name: str, home: str) -> tuple[str, str | None]:
    study, _, rest = name.partition("/")
    label, _, seed = rest.rpartition("/")
    submission, _ = newest_of_any(reader, study, home)
    runs = _named(reader, submission) if submission else []
    same = {item.key: item for item in runs if (item.label, item.seed) == (label, seed)}
    if not same:
        names = ", ".join(f"{study}/{item.label}/{item.seed}" for item in runs[:_MOST_NAMES])
        raise Refused(f"no Run {name}" + (f" (such as {names})" if names else ""), 1)
    if len(same) > 1:  # a version that did not tell alike values apart has submitted it
        raise Refused(f"several Runs are called {name}: give a key ({', '.join(same)})", 1)
    ((key, item),) = same.items()
    return key, item.run_id


def _named(reader: MlflowReader, submission: Submission) -> list[Named]:
    """Return the Runs of a submission, then the trials of its searches."""
    runs = [Named(i.run.label, str(i.run.seed), i.run.key, i.run_id) for i in submission.runs]
    searches = [item.tracked for item in submission.searches if item.tracked is not None]
    for trial in (trial for search in searches for trial in reader.children(search)):
        tags = trial.tags
        named = Named(tags[Tag.LABEL], tags[Tag.SEED], tags[Tag.RUN_KEY], trial.run_id)
        runs.append(named)
    return runs
