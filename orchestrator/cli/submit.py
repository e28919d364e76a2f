"""Submits a study as a job, follows it to its end and prints the comparison: submit."""

import argparse
import hashlib
import json
import sys
import time
import uuid
from dataclasses import dataclass, replace
from typing import NamedTuple

from rich.console import Console

from orchestrator.cli.console import (
    MESSAGES,
    Terminal,
    say,
    settings_of,
    show_decoding,
    show_services,
)
from orchestrator.cli.plan import (
    check_own_code,
    data_root,
    prepare_study,
    read_study,
    show_near,
    show_plan,
    show_remarks,
)
from orchestrator.cli.progress import best_trial, follow
from orchestrator.clusters.check import Checked, Needed, NotReady, check_cluster
from orchestrator.clusters.settings import choose_cluster
from orchestrator.clusters.store import check_own_store, job_home, store_of
from orchestrator.config.errors import Refused
from orchestrator.config.mlflow_settings import (
    MlflowSettings,
    check_address,
    is_loopback,
    read_own_settings,
)
from orchestrator.config.study_schema import Study
from orchestrator.driver.reconcile import ending, is_alive, reconcile
from orchestrator.execution.ray_jobs import Job, Jobs
from orchestrator.notify.notifier import send_waiting
from orchestrator.planning.commit import code_that_runs
from orchestrator.planning.plan import UnknownPlan
from orchestrator.planning.prepare import Prepared, build_caches, build_ids, store_plan
from orchestrator.reporting.comparison import State
from orchestrator.services import home_services
from orchestrator.services.record import RayService, Services
from orchestrator.storage.files import locked
from orchestrator.storage.home import LOCAL, Home, find_home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.comparison_report import find_answer
from orchestrator.tracking.mlflow_client import TrackingError, answer_page
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission, load, newest
from orchestrator.tracking.tags import Tag
from trainables.config import as_plain
from trainables.own_code.names import is_own
from trainables.schemas.registry import PRODUCER_SCHEMAS


class _Running(NamedTuple):
    """The two services that a job needs, both running."""

    ray: RayService
    mlflow_uri: str


@dataclass(frozen=True)
class Sent:
    """A study whose job was sent, or (`last`) all of whose Runs were done already."""

    options: argparse.Namespace
    study: str
    home: Home
    jobs: Jobs
    tracker: Tracker
    job: str | None = None
    last: Submission | None = None

    def finish(self) -> int:
        """Follow it until it ends, and print the comparison. Returns the exit status."""
        if self.last is not None:
            return _conclude(self.options, self.last, self.tracker)
        return _watch(self, str(self.job))


def submit(options: argparse.Namespace) -> int:
    """Run what is not done yet, follow it until the study ends, and print the comparison."""
    return send(options, read_study(options)).finish()


def send(options: argparse.Namespace, study: Study) -> Sent:
    """Show the plan of a study, start the services and send the job of what is not done yet."""
    out = MESSAGES if options.json else Terminal(highlight=False)
    options = _on_cluster(options)
    settings = settings_of(options)
    check_own_store(options, options.own)
    home = find_home(options.home).create()
    send_waiting(home.root)
    with locked(home.planning, shared=True):  # `clean` waits until the plan is stored
        prepared, caches = None, dict[str, str]()
        if options.address is None:
            prepared = prepare_study(options, study)
            show_plan(prepared, home, out)
            show_remarks(prepared)
            caches = build_ids(build_caches(prepared, home, show_decoding(out)))
            show_near(prepared.near_remarks(home, compute=True))
        running = _start_services(options, settings, home, out)
        show_services(Services(running.ray, running.mlflow_uri), out)
        jobs = Jobs(running.ray)
        if not running.ray.local:
            checked = _check(options, study, running, jobs, home)
            if checked.faults:
                raise NotReady(running.ray.dashboard_url, checked.faults)
        tracker = Tracker(running.mlflow_uri, home.artifacts)
        sent = Sent(options, study.name, home, jobs, tracker)
        # a second `submit` of the study waits here, then follows the job of the first
        with locked(home.root / f".submitting-{study.name}.lock"):
            if prepared is not None and jobs.running(study.name, home) is None:
                last = _reconcile_last(tracker, home, study.name, running.ray)
                if last is not None and _is_done(last, prepared):
                    out.print(f"every Run of {study.name} is done: nothing to train")
                    return replace(sent, last=last)
            job = replace(_job(options, study, prepared, running, home), caches=caches)
            experiment = tracker.writer.experiment(study.name)
            job = replace(job, page=tracker.writer.pages.job_page(experiment, job.job_id))
            job_id = _send_job(options, home, jobs, job)
            if prepared is not None:
                store_plan(prepared, home)
    return replace(sent, job=job_id)


def check(options: argparse.Namespace) -> int:
    """Look at every host of a cluster, and print what each has and what is wrong. With
    `module:Name` check that an own trainable keeps its contract."""
    if options.study and is_own(options.study):
        return check_own_code(options)
    options = _on_cluster(options)
    if options.address is None:
        raise Refused(
            "check looks at a cluster, or at your own trainable: give --cluster NAME, --address "
            "URL, or module:Name",
            2,
        )
    study = read_study(options) if options.study else None
    home = find_home(options.home).create()
    running = _start_services(options, settings_of(options), home, MESSAGES)
    checked = _check(options, study, running, Jobs(running.ray), home)
    for line in checked.hosts:
        say(line)
    if checked.faults:
        raise NotReady(running.ray.dashboard_url, checked.faults)
    say(f"all {len(checked.hosts)} hosts can do what is needed ({checked.seconds:.0f} s)")
    return 0


def _check(
    options: argparse.Namespace, study: Study | None, running: _Running, jobs: Jobs, home: Home
) -> Checked:
    """Look at the hosts of a cluster. study: whose data they shall have; None: that of --data."""
    root = _data_root(options)
    paths = [root] if study is None else [item.path or root for item in study.data.values()]
    named = list(dict.fromkeys(path for path in paths if path))
    stages = study.stages if study is not None else ()
    produces = any(stage.trainable in PRODUCER_SCHEMAS for stage in stages)
    needed = Needed(running.mlflow_uri, named, produces, store_of(options, options.own))
    return check_cluster(jobs, job_home(options, home.root), needed)


def _on_cluster(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options with what clusters.yaml says of the cluster that `--cluster` names, and
    with what orchestrator.yaml says (`own`)."""
    options = argparse.Namespace(**vars(options), own=read_own_settings(options.mlflow))
    cluster = choose_cluster(options.cluster, options.mlflow)
    if cluster is None:
        return options
    if options.address is not None:
        raise Refused("--address and --cluster name two clusters: give one of them", 2)
    given = {"address": cluster.ray, "job_home": cluster.home, "job_data": cluster.data}
    given["job_store"] = cluster.store or ""
    return argparse.Namespace(**vars(options) | given)


def _data_root(options: argparse.Namespace) -> str | None:
    """Return the folder of the data sets, as the job sees it."""
    there = None if options.data else getattr(options, "job_data", None)
    return there or data_root(options)


def _job(
    options: argparse.Namespace,
    study: Study,
    prepared: Prepared | None,
    running: _Running,
    home: Home,
) -> Job:
    """Return the job that trains a study: what its driver needs to know, as plain data."""
    own = options.own
    return Job(
        job_id=f"{study.name}-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}",
        study=study.mapping,
        plan=prepared.request_digest if prepared else _plan_digest(study, options),
        data_root=_data_root(options),
        home=str(job_home(options, home.root)[0]),
        cluster=LOCAL if running.ray.local else running.ray.dashboard_url,
        tracking_uri=running.mlflow_uri,
        **code_that_runs(),
        submitter=home.name,
        home_is_shared=job_home(options, home.root)[1],
        price=as_plain(own.price),
        notify=as_plain(own.notify) if own.notify else {},
        gauges=own.gauges,
        store=store_of(options, own),
        dashboard=running.ray.dashboard_url,
    )


def _start_services(
    options: argparse.Namespace, settings: MlflowSettings, home: Home, out: Console
) -> _Running:
    """Start Ray and MLflow on this machine; with `--address` only MLflow. Raises Refused."""
    if options.address is None:
        running = home_services.start(home, settings, out.print, gauges=options.own.gauges)
        if running.ray is None or running.mlflow_uri is None:
            raise Refused("Ray or MLflow did not start: see their logs in the home", 1)
        return _Running(running.ray, running.mlflow_uri)
    if "@" in options.address:
        raise Refused("--address must contain no user and no password", 2)
    try:
        check_address(options.address)
    except ValueError as error:
        raise Refused(f"--address {error}", 2) from error
    uri = str(home_services.start(home, settings, out.print, only=("mlflow",)).mlflow_uri)
    ray = RayService("", options.address.rstrip("/"), None, local=False)
    if is_loopback(uri) and not is_loopback(ray.dashboard_url):
        raise Refused(
            f"the cluster at {ray.dashboard_url} cannot reach MLflow at {uri}: give the address of "
            "a server that it can reach as tracking_uri in mlflow.yaml",
            2,
        )
    return _Running(ray, uri)


def _plan_digest(study: Study, options: argparse.Namespace) -> str:
    """Return the digest that stands for the plan where only the cluster has the data to make
    one."""
    data = _data_root(options) if options.cluster else options.data
    text = json.dumps([dict(study.mapping), data], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _send_job(options: argparse.Namespace, home: Home, jobs: Jobs, job: Job) -> str:
    """Send the job, or find a running one with the same plan. Returns the job's id.

    Raises Refused when the study runs with another plan.
    """
    study = str(job.study["study"])
    running = jobs.running(study, home)
    if running is None:
        jobs.submit(job)
        return job.job_id
    if running.plan != job.plan:
        raise Refused(
            f"study {study} is running with another plan (job {running.job_id}): wait for its end, "
            f"stop it with `stop {study}`, or give this study another name under `study:`",
            2,
        )
    MESSAGES.print(f"{options.study} is running already: following job {running.job_id}")
    return running.job_id


def _watch(sent: Sent, job_id: str) -> int:
    """Follow a job to its end and print the comparison. Returns the exit status."""
    options, study, home, tracker = sent.options, sent.study, sent.home, sent.tracker
    console = Terminal(highlight=False, stderr=options.json)
    try:
        submission = follow(sent.jobs, tracker, study, job_id, Store(home.store), console)
    except KeyboardInterrupt:
        typed = f"python -m orchestrator submit {' '.join(sys.argv[2:])}"
        command = getattr(options, "again", typed)
        MESSAGES.print(f"\nstopped following; the study goes on. Follow again with\n  {command}")
        return 130
    status = sent.jobs.status(job_id)
    if status == "STOPPED":
        MESSAGES.print(f"{study} was stopped: submit it again to go on")
    elif status != "SUCCEEDED" and (reason := _failure(sent.jobs, job_id)):
        MESSAGES.print(reason, markup=False)
    if submission is None:
        return 1
    try:
        last = load(tracker.reader, tracker.reader.run(submission.tracked.run_id))
        if last.tracked.tags[Tag.JOB] == job_id:
            last = reconcile(tracker, home, last, sent.jobs.ending(job_id))
        else:
            MESSAGES.print(f"job {last.tracked.tags[Tag.JOB]} has gone on with {study}")
        return _conclude(options, last, tracker)
    except TrackingError as error:
        what = "refuses" if error.answered else "does not answer"
        MESSAGES.print(f"MLflow at {tracker.uri} {what}: {error}", markup=False)
        MESSAGES.print("results it has not received are in the store: submit again to send them")
        return 1


def _failure(jobs: Jobs, job_id: str) -> str:
    """Return the driver's errors, else how its process ended."""
    errors = jobs.errors(job_id)
    if not errors and jobs.exit_status(job_id) != 1:  # 1: the reasons stand with the Runs
        errors = [f"{jobs.ending(job_id)}; submit the study again to go on"]
    return "\n".join(errors)


def _conclude(options: argparse.Namespace, submission: Submission, tracker: Tracker) -> int:
    """Print the comparison. Returns 0 when every Run has finished, else 1."""
    said = find_answer(tracker.reader, submission).answer
    say(said.forms["json"] if options.json else f"\n{said.forms['text']}")
    for search in submission.searches:
        ended = search.state == State.FINISHED
        line = best_trial(search) if ended else f"{search.name}: {search.reason}"
        MESSAGES.print(line, markup=False)
    if said.note:
        MESSAGES.print(said.note)
    page = answer_page(tracker.uri, submission.tracked)
    MESSAGES.print(f"the answer, with charts: {page}", markup=False)
    return 0 if submission.finished else 1


def _reconcile_last(tracker: Tracker, home: Home, study: str, ray: RayService) -> Submission | None:
    """Return the study's last submission in its true state, also where its driver has died."""
    try:
        last = newest(tracker.reader, study, home.name)
    except UnknownPlan as error:
        MESSAGES.print(f"warning: {error}", markup=False)
        return None
    local = ray if ray.local else None
    if last is None or is_alive(last, home, local):
        return last
    return reconcile(tracker, home, last, ending(last, local))


def _is_done(last: Submission, prepared: Prepared) -> bool:
    """Return whether the last submission has the same plan and all its Runs are done."""
    same = last.tracked.tags.get(Tag.PLAN) == prepared.request_digest
    stored = not prepared.pending and all(item.state == "done" for item in prepared.planned)
    return same and stored and last.finished
