"""The command that trains: submit."""

import argparse
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Callable

from rich.console import Console

from orchestrator.cli.console import ERRORS, show_services
from orchestrator.cli.plan import data_root, prepare_study, read_study, show_plan
from orchestrator.cli.progress import finding, follow
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import MlflowSettings, read_settings
from orchestrator.config.study_schema import Study
from orchestrator.driver.reconcile import ending, is_alive, settle
from orchestrator.execution import services
from orchestrator.execution.ray_jobs import LOCAL, Job, Jobs
from orchestrator.execution.services import RayService, Services
from orchestrator.planning.code_version import git_commit, tree_version
from orchestrator.planning.plan import UnknownPlan
from orchestrator.planning.prepare import Prepared, build_caches, store_plan
from orchestrator.reporting.comparison import tables, unfinished
from orchestrator.reporting.tables import as_json, as_text
from orchestrator.storage.files import locked
from orchestrator.storage.home import Home, find_home
from orchestrator.tracking.mlflow_client import Tracker, TrackingError
from orchestrator.tracking.run_states import Submission, comparison, newest, records


def submit(options: argparse.Namespace) -> int:
    """Train what is not done yet and compare; follows until the study ends."""
    out = ERRORS if options.json else Console(highlight=False)
    study = read_study(options)
    settings = read_settings(options.mlflow)
    home = find_home(options.home).create()
    with locked(home.planning, shared=True):  # `clean` keeps away until the plan is remembered
        prepared = None
        if options.address is None:
            prepared = prepare_study(options, study)
            show_plan(prepared, out)
            build_caches(prepared, home, _decoding(out))
        found = _services(options, settings, home, out)
        assert found.ray is not None and found.mlflow_uri is not None
        show_services(found, out)
        jobs, tracker = Jobs(found.ray), Tracker(found.mlflow_uri)
        with locked(home.root / f".submitting-{study.name}.lock"):  # another one follows this one
            if prepared is not None and jobs.running(study.name, home) is None:
                last = _settle_last(tracker, home, study.name, found.ray)
                if last is not None and _is_done(last, prepared):
                    out.print(f"every Run of {study.name} is done: nothing to train")
                    return _conclude(options, last)
            job_id = _start(options, home, jobs, _job(options, study, prepared, found, home))
            if prepared is not None:
                store_plan(prepared, home)
    return _watch(options, study.name, home, jobs, tracker, job_id)


def _job(
    options: argparse.Namespace,
    study: Study,
    prepared: Prepared | None,
    found: Services,
    home: Home,
) -> Job:
    assert found.ray is not None and found.mlflow_uri is not None
    return Job(
        job_id=f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}",
        study=study.mapping,
        plan=prepared.request_digest if prepared else _asked(study, options),
        data_root=data_root(options),
        home=str(home.root),
        cluster=LOCAL if found.ray.local else found.ray.dashboard_url,
        tracking_uri=found.mlflow_uri,
        tree=tree_version(),
        git_commit=git_commit(),
    )


def _services(
    options: argparse.Namespace, settings: MlflowSettings, home: Home, out: Console
) -> Services:
    if options.address is None:
        return services.start(home, settings, out.print)
    if "@" in options.address:
        raise Refused("--address must hold no user and no password", 2)
    uri = services.start(home, settings, out.print, only=("mlflow",)).mlflow_uri
    ray = RayService("", options.address.rstrip("/"), None, local=False)
    if services.is_loopback(str(uri)) and not services.is_loopback(ray.dashboard_url):
        raise Refused(
            f"the cluster at {ray.dashboard_url} cannot reach MLflow at {uri}: name a server that "
            "it can reach as tracking_uri in mlflow.yaml",
            2,
        )
    return Services(ray, uri)


def _asked(study: Study, options: argparse.Namespace) -> str:
    """Stands for the plan where only the cluster has the data to make it."""
    text = json.dumps([dict(study.mapping), options.data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _start(options: argparse.Namespace, home: Home, jobs: Jobs, job: Job) -> str:
    """Send the job, or find the one that does the same already. Returns its id."""
    study = str(job.study["study"])
    running = jobs.running(study, home)
    if running is None:
        jobs.submit(job)
        return job.job_id
    if running.plan != job.plan:
        raise Refused(
            f"study {study} is running with another plan (job {running.job_id}): let it end, "
            f"`stop {study}`, or give this one another name under `study:`",
            2,
        )
    ERRORS.print(f"{options.study} runs already: following job {running.job_id}")
    return running.job_id


def _watch(
    options: argparse.Namespace,
    study: str,
    home: Home,
    jobs: Jobs,
    tracker: Tracker,
    job_id: str,
) -> int:
    """Follow a job to its end and print the comparison. Returns the exit status."""
    console = Console(highlight=False, stderr=options.json)
    try:
        submission = follow(jobs, tracker, study, job_id, console)
    except KeyboardInterrupt:
        command = f"python -m orchestrator submit {' '.join(sys.argv[2:])}"
        ERRORS.print(f"\nstopped following; the study goes on. Follow again with\n  {command}")
        return 130
    status = jobs.status(job_id)
    if status == "STOPPED":
        ERRORS.print(f"{study} was stopped: submit it again and it goes on")
    elif status != "SUCCEEDED" and (why := _why(jobs, job_id)):
        ERRORS.print(why, markup=False)
    if submission is None:
        return 1
    try:
        last = newest(tracker, study) or submission
        if last.tracked.tags["job"] == job_id:  # else another one has taken over meanwhile
            last = settle(tracker, home, last, jobs.ending(job_id))
        return _conclude(options, last)
    except TrackingError as error:
        ERRORS.print(f"MLflow does not answer at {tracker.uri}: {error}", markup=False)
        ERRORS.print("what it lacks waits in the store; submit again and it is sent")
        return 1


def _why(jobs: Jobs, job_id: str) -> str:
    """What the driver said of its failure, else how it ended."""
    lines = jobs.logs(job_id).strip().splitlines()
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if not said and any(line.startswith("Traceback") for line in lines):
        said = lines[-15:]
    elif not said and jobs.exit_status(job_id) != 1:  # else each Run has said it for itself
        said = [f"{jobs.ending(job_id)}; submit the study again and it goes on"]
    return "\n".join(said)


def _conclude(options: argparse.Namespace, submission: Submission) -> int:
    """Print the comparison. Returns 0 when every Run has finished, else 1."""
    spec, runs = comparison(submission.plan), records(submission)
    made, left = tables(runs, spec), unfinished(runs, spec)
    if options.json:
        print(json.dumps(as_json(made), indent=1))
    else:
        print(f"\n{submission.plan['question']}\n\n{as_text(made)}")
    for search in submission.searches:
        said = finding(search) if search.state == "FINISHED" else f"{search.name}: {search.reason}"
        ERRORS.print(said, markup=False)
    if left:
        ERRORS.print(left)
    return 0 if submission.finished else 1


def _settle_last(tracker: Tracker, home: Home, study: str, ray: RayService) -> Submission | None:
    """The study's last submission, with what a dead driver left behind put right."""
    try:
        last = newest(tracker, study)
    except UnknownPlan as error:
        ERRORS.print(f"warning: {error}", markup=False)
        return None
    local = ray if ray.local else None
    if last is None or is_alive(last, home, local):
        return last
    return settle(tracker, home, last, ending(last, local))


def _is_done(last: Submission, prepared: Prepared) -> bool:
    """Whether the last submission was of the same plan and all of it is done."""
    same = last.tracked.tags.get("plan") == prepared.request_digest
    stored = not prepared.pending and all(item.state == "done" for item in prepared.planned)
    return same and stored and last.finished


def _decoding(out: Console) -> Callable[[str, int, int], None]:
    """Says how far decoding is, every two seconds."""
    last = [time.monotonic()]

    def show(name: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 2:
            last[0] = time.monotonic()
            out.print(f"decoding {name}: {done}/{total} images")

    return show
