"""Commands that tend what was submitted: stop, logs, clean. They import neither torch nor data."""

import argparse
import tempfile
from pathlib import Path

from orchestrator.cli.console import ERRORS
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import read_settings
from orchestrator.config.yaml_loader import study_name
from orchestrator.driver.reconcile import jobs_of, settle
from orchestrator.execution import services
from orchestrator.execution.ray_jobs import Jobs
from orchestrator.storage.home import find_home
from orchestrator.storage.run_log import named_logs
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import Tracker
from orchestrator.tracking.run_states import find_run, newest


def stop(options: argparse.Namespace) -> int:
    """End a study's job; what is trained stays, and submitting goes on from there."""
    home, study = find_home(options.home), study_name(options.study)
    found = services.find(home, read_settings(options.mlflow))
    tracker = Tracker(found.mlflow_uri) if found.mlflow_uri else None
    submission = newest(tracker, study) if tracker else None
    jobs = jobs_of(submission, found.ray) if submission else found.ray and Jobs(found.ray)
    if not jobs:
        raise Refused(f"the cluster that {study} was sent to does not answer: nothing to stop", 1)
    running = jobs.running(study, home)
    if running:
        jobs.stop(running.job_id)
    elif tracker and submission is None:
        raise Refused(f"study {study} was never submitted to {found.mlflow_uri}", 1)
    if tracker and submission:
        last = newest(tracker, study) or submission  # the job may have opened one meanwhile
        last = settle(tracker, home, last, jobs.ending(last.tracked.tags["job"]))
        done = sum(item.state == "FINISHED" for item in last.runs)
        ERRORS.print(f"{done} of {len(last.runs)} Runs are done")
        for search in last.searches:
            ERRORS.print(
                f"{search.ended} of {search.spec['count']} trials of {search.name} have ended"
            )
    print(f"stopped {study}: submit it again and it goes on" if running else "it was not running")
    return 0


def logs(options: argparse.Namespace) -> int:
    """What a Run itself said: every attempt, every rank; also after it died."""
    home = find_home(options.home).create()
    found = services.start(home, read_settings(options.mlflow), ERRORS.print, only=("mlflow",))
    tracker, store = Tracker(str(found.mlflow_uri)), Store(home.store)
    key, run_id = find_run(tracker, options.run)
    with tempfile.TemporaryDirectory() as folder:
        files = store.run(key).logs()
        if not files and run_id:  # it was trained elsewhere
            files = named_logs(tracker.download(run_id, "logs", Path(folder)))
        if not files:
            raise Refused(f"{options.run} has said nothing yet: it has not started", 1)
        for (attempt, rank), path in files.items():
            print(f"==> attempt {attempt}, rank {rank} <==")
            print(path.read_text(encoding="utf-8", errors="replace"))
    return 0
