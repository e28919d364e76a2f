"""Commands for the Runs of a submitted study: stop, logs. They load no torch."""

import argparse
import tempfile
from pathlib import Path

from orchestrator.cli.console import MESSAGES, say
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.reconcile import jobs_of, reconcile
from orchestrator.execution import services
from orchestrator.execution.ray_jobs import Jobs
from orchestrator.reporting.comparison import State
from orchestrator.storage.home import find_home
from orchestrator.storage.run_log import named_logs
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import find_run, newest, newest_of_any
from orchestrator.tracking.tags import Tag


def stop(options: argparse.Namespace) -> int:
    """Stop a study's job. Its checkpoints stay, and submitting it again goes on from them."""
    home, study = find_home(options.home), study_name(options.study)
    services_up = services.find(home, read_settings(options.mlflow))
    tracker = Tracker(services_up.mlflow_uri) if services_up.mlflow_uri else None
    submission = newest(tracker.reader, study, home.name) if tracker else None
    ray = services_up.ray
    jobs = jobs_of(submission, ray) if submission else ray and Jobs(ray)
    if not jobs:
        raise Refused(f"the Ray cluster of {study} does not answer: nothing was stopped", 1)
    running = jobs.running(study, home)
    if running:
        jobs.stop(running.job_id)
    elif tracker and submission is None:
        _, owner = newest_of_any(tracker.reader, study, home.name)
        if owner:
            raise Refused(f"study {study} was submitted by home {owner}: stop it from there", 1)
        raise Refused(f"study {study} was never submitted to {services_up.mlflow_uri}", 1)
    if tracker and submission:
        # the job may have opened a new one
        last = newest(tracker.reader, study, home.name) or submission
        last = reconcile(tracker, home, last, jobs.ending(last.tracked.tags[Tag.JOB]))
        done = sum(item.state == State.FINISHED for item in last.runs)
        MESSAGES.print(f"{done} of {len(last.runs)} Runs are done")
        for search in last.searches:
            MESSAGES.print(
                f"{search.ended} of {search.spec['count']} trials of {search.name} have ended"
            )
    say(f"stopped {study}: submit it again to go on" if running else f"{study} was not running")
    return 0


def logs(options: argparse.Namespace) -> int:
    """Print a Run's log of every attempt and every worker, also of a Run that has failed."""
    home = find_home(options.home).create()
    settings = read_settings(options.mlflow)
    uri = services.start(home, settings, MESSAGES.print, only=("mlflow",)).mlflow_uri
    tracker, store = Tracker(str(uri)), Store(home.store)
    key, run_id = find_run(tracker.reader, options.run, home.name)
    with tempfile.TemporaryDirectory() as folder:
        files = store.run(key).logs()
        if not files and run_id:  # trained on another machine
            files = named_logs(tracker.reader.download(run_id, "logs", Path(folder)))
        if not files:
            raise Refused(f"no logs yet for {options.run}: it has not started", 1)
        for (attempt, rank), path in files.items():
            say(f"==> attempt {attempt}, rank {rank} <==")
            say(path.read_text(encoding="utf-8", errors="replace"))
    return 0
