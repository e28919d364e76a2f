"""Take one submission from its plan to its comparison, as the driver of a Ray job.

python -m orchestrator.driver.driver job.json
"""

import json
import logging
import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import ray

from orchestrator.config.errors import Refused, UserError, one_line
from orchestrator.config.mlflow_settings import NotifySettings
from orchestrator.config.study_loader import from_mapping
from orchestrator.config.study_schema import Study
from orchestrator.driver.followed import Teller
from orchestrator.driver.registry import register_best
from orchestrator.driver.scheduler import Scheduler, Starts
from orchestrator.driver.submission import (
    close_submission,
    decode_with_store,
    log_plan,
    open_submission,
    plan_with_store,
    taking_turns,
)
from orchestrator.driver.watch import Heartbeat, Watch
from orchestrator.execution.launcher import SECRETS, forget_secrets, take_secrets
from orchestrator.execution.ray_jobs import Job
from orchestrator.execution.resources import Requests, check_room, cluster_nodes, machines
from orchestrator.meters.gauges import Standing, StudyGauges
from orchestrator.mirror.owners import Owners
from orchestrator.needs.resources import Resources
from orchestrator.notify.notifier import Notifier
from orchestrator.planning.code_version import tree_version
from orchestrator.planning.placement import at_once
from orchestrator.planning.prepare import Prepared, prepare, store_plan
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.reporting.comparison import State
from orchestrator.storage.files import NO_ROOM, Busy, locked
from orchestrator.storage.home import LOCAL, Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.sync import DRAIN_SECONDS, MlflowSync, retry_mlflow
from orchestrator.tracking.tags import Kind, Tag
from orchestrator.tuning.search_runner import SearchRunner
from orchestrator.tuning.tuner import SearchContext
from orchestrator.warm.switch import job_environment
from trainables.dataset import DataError

log = logging.getLogger("orchestrator")
_HANDOVER_SECONDS = 60.0
_EVENTS_SECONDS = 10 * 86400.0  # how long files of events are kept


def main(path: str) -> int:
    """Run the driver. Returns the exit status: 0 when all Runs finished, else 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    try:
        return run(job)
    except Exception as error:  # whatever it is, users must hear of it in one line
        reason = _reason_of(error, job)
        print(f"error: {reason}", file=sys.stderr, flush=True)
        note_failure(job, reason)
        notifier_of(job).tell("failed", job.job_id, f"{job.study['study']} has ended", reason)
    return 1


def notifier_of(job: Job) -> Notifier:
    """Return what tells of a study: as the study says, else as the settings of the command do."""
    settings = job.study.get("notify") or job.notify
    kept = NotifySettings(**settings) if settings else None
    return Notifier(Path(job.home), str(job.study["study"]), kept)


def _reason_of(error: Exception, job: Job) -> str:
    """Return in a line why the driver ends. The traceback of an error that nobody expected goes to
    a file of the home, which the line names."""
    if isinstance(error, (UserError, DataError)):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"{error}; free some space and submit again"
    said = str(error).strip()
    if "Traceback (most recent call last)" in said:  # Ray puts one into the message
        said = said.splitlines()[-1]
    text = one_line(f"{type(error).__name__}: {said}", 300)
    log.error("the driver fails", exc_info=error)
    file = Path(job.home) / "logs" / f"{job.job_id}.log"
    try:
        file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError as unwritten:
        log.warning("%s cannot be written: %s", file, unwritten)
        return text
    return f"{text} (details: {file})"


def note_failure(job: Job, reason: str) -> None:
    """Write into MLflow why a driver ends: into its submission, or into a run of its own where none
    was opened."""
    study = str(job.study["study"])
    head, *details = (part.strip() for part in reason.splitlines())
    line = f"{head}: {'; '.join(details)}" if details else head
    try:
        tracker = Tracker(job.tracking_uri)
        submission = tracker.reader.submission_of(study, job.job_id)
        if submission is not None:
            tracker.writer.set_tags(submission.run_id, {Tag.REASON: line})
            return
        tags: dict[str, str] = {
            Tag.KIND: Kind.OPENING,
            Tag.STUDY: study,
            Tag.JOB: job.job_id,
            Tag.CLUSTER: job.cluster,
            Tag.SUBMITTER: job.submitter or Home(Path(job.home)).name,
            Tag.REASON: line,
        }
        begun = tracker.reader.submission_of(study, job.job_id, Kind.OPENING)
        experiment = tracker.writer.experiment(study)
        name = f"submission {job.job_id}"
        run_id = begun.run_id if begun else tracker.writer.create_run(experiment, name, tags)
        tracker.writer.set_tags(run_id, {Tag.REASON: line})
        tracker.writer.set_status(run_id, State.FAILED)
    except UserError as error:
        log.warning("MLflow has not heard why the driver ends: %s", error)


def run(job: Job) -> int:
    """Make the plan where the data is, and train what it has. Returns the exit status."""
    if job.tree != tree_version():
        raise Refused("driver and command run different code: install the same on both", 1)
    home = _home_of(job).create()
    study = from_mapping(job.study)
    patient = job.cluster != LOCAL  # the nodes of a cluster come and go
    owners = Owners(Store(home.store), job.store, home.name)
    with _only_driver(home, study.name), _told(home.events(job.job_id)), _connected(job):
        with locked(home.planning, shared=True):
            prepared = plan_with_store(study, job, home, owners)
            if not patient:  # a machine does not grow: said before anything is stored
                check_room(stage.resources for stage in study.stages)
            tables = decode_with_store(prepared, job, home, owners)
            tracker = Tracker(job.tracking_uri, home.artifacts)
            submission = retry_mlflow(lambda: open_submission(tracker, prepared, job, home))
            store_plan(prepared, home)
        facts = {str(Tag.STUDY): study.name}
        facts |= {str(Tag.GIT_COMMIT): job.git_commit} if job.git_commit else {}
        events = home.events(job.job_id)
        with _heartbeat(tracker, submission, events) as heart, taking_turns(job, study) as turns:
            sync = MlflowSync(tracker, Store(home.store), submission, facts)
            starts = Starts(Requests(patient, heart.waits), turns)
            scheduler = Scheduler(prepared, starts, tables, home, sync, job.job_id)
            scheduler.owners = owners
            searches = SearchRunner(tracker, submission, facts)
            sync.start()
            watch = _start_watch(job, home, scheduler)
            try:
                heart.holds = partial(_machines, starts.requests)
                context = partial(_search_context, scheduler)
                again = partial(replan, study, job, home, tracker, submission)
                _train(scheduler, searches, context, again)
            finally:
                starts.requests.close()
                watch.stop()
                sent = sync.stop(DRAIN_SECONDS) and searches.sent
            ends = _ends(scheduler, searches)
            status = close_submission(tracker, submission, ends, sent, job.price, watch.notifier)
            register_best(tracker, Store(home.store), submission)
            return status


def _train(
    scheduler: Scheduler,
    searches: SearchRunner,
    context: Callable[[Resources], SearchContext],
    again: Callable[[], Prepared],
) -> None:
    """Train all Runs and searches of a plan. again: makes the plan again after a search."""
    scheduler.run()
    while planned := next_search(scheduler, searches):
        pending, stage = scheduler.prepared.pending, planned.stage
        searches.run(planned, context(stage.resources), stage.name not in pending)
        scheduler.prepared = again()
        scheduler.run()


def _search_context(scheduler: Scheduler, resources: Resources) -> SearchContext:
    """Return what a search that begins now needs to know, as soon as there are nodes for it."""
    request = scheduler.starts.requests.wait_for(resources)
    slots, crashes = at_once(request, cluster_nodes()), resources.max_failures.crash
    home, tables = scheduler.home, scheduler.tables
    return SearchContext(home, request, slots, tables, scheduler.job, crashes)


def _home_of(job: Job) -> Home:
    """Return the job's home. Raises Refused where it is that of the command, and this host does not
    see it: an empty one in its place would know of no Run."""
    home = Home(Path(job.home))
    if job.home_is_shared and not job.store and home.name != job.submitter:
        raise Refused(
            f"host {platform.node()} of the cluster does not see the home {home.root} of the "
            "command: put it on a folder that all hosts share (--home), or give the cluster a home "
            "in clusters.yaml",
            1,
        )
    return home


@contextmanager
def _heartbeat(tracker: Tracker, submission: TrackedRun, events: Path) -> Iterator[Heartbeat]:
    """Let MLflow know in the block that the driver lives."""
    heart = Heartbeat(partial(tracker.writer.set_tags, submission.run_id), events)
    heart.start()
    try:
        yield heart
    finally:
        heart.stop()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Write for those who follow what the block warns of; remove what jobs of ten days ago have
    left."""
    for old in path.parent.glob("*.events"):
        if time.time() - old.stat().st_mtime > _EVENTS_SECONDS:
            old.unlink(missing_ok=True)
    teller = Teller(path)
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)


@contextmanager
def _connected(job: Job) -> Iterator[None]:
    """Connect to the cluster that has started this job, and take the variables that its study
    names; the head forgets them at the end of the block."""
    address = os.environ["RAY_ADDRESS"]  # set by Ray for every job
    # Train's own clean-up actor looks for the cluster's address in the runtime environment
    environment = {"env_vars": {"RAY_ADDRESS": address, **job_environment()}}
    if job.secrets:
        os.environ[SECRETS] = environment["env_vars"][SECRETS] = job.secrets
    ray.init(address, runtime_env=environment, logging_level="WARNING")
    # all that must stay is on the disk already, so a stop need not wait for anything
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    try:
        take_secrets()
        yield
    finally:
        forget_secrets()


def _start_watch(job: Job, home: Home, scheduler: Scheduler) -> Watch:
    """Begin to tell of Runs that fail, stall or collapse, where the study or the settings ask, and
    to set gauges, where the settings do."""
    notifier = notifier_of(job)
    notifier.remember()
    watch = Watch(Store(home.store), notifier, job.job_id)
    watch.start(scheduler)
    if job.gauges:
        StudyGauges(
            str(job.study["study"]), Store(home.store), partial(_standing, scheduler)
        ).start()
    return watch


def _standing(scheduler: Scheduler) -> Standing:
    keys = [run.key for run in scheduler.prepared.runs]
    running = [item.run.key for item in list(scheduler.running.values())]
    return Standing(keys, running, dict(scheduler.states))


def _machines(requests: Requests) -> dict[str, str]:
    """Return what the cluster has, and how many Runs it holds at once, as tags; none where that is
    not known yet."""
    slots = requests.slots()
    return {Tag.AT_ONCE: str(slots), Tag.MACHINES: machines(requests.nodes)} if slots else {}


def next_search(scheduler: Scheduler, searches: SearchRunner) -> PlannedSearch | None:
    """Return the next search of the plan that has not ended. One whose parent failed is marked as
    blocked, and never starts."""
    for planned in scheduler.prepared.searches:
        if planned.stage.name in searches.ended:
            continue
        if planned.parent and scheduler.states.get(planned.parent.key) != State.FINISHED:
            searches.block(planned, planned.parent.label)
            continue
        return planned
    return None


def replan(
    study: Study, job: Job, home: Home, tracker: Tracker, submission: TrackedRun
) -> Prepared:
    """Make the plan again, now with the values that a search has found, and store it."""
    with locked(home.planning, shared=True):
        prepared = prepare(study, Path(job.data_root) if job.data_root else None, home)
        store_plan(prepared, home)
    near = prepared.near_remarks(home)
    place = (tracker.writer, submission.experiment_id, submission.run_id)
    retry_mlflow(lambda: log_plan(*place, prepared, near))
    return prepared


def _ends(scheduler: Scheduler, searches: SearchRunner) -> dict[str, str]:
    """Return the state of every Run (by key) and of every search (by stage)."""
    ends: dict[str, str] = {**scheduler.states}
    ends |= {stage: state for stage, (state, _) in searches.ended.items()}
    return ends | {name: State.BLOCKED for name in scheduler.prepared.pending if name not in ends}


@contextmanager
def _only_driver(home: Home, study: str) -> Iterator[None]:
    """Be the study's only driver, on whatever cluster. A driver that dies with its cluster may
    need a moment to end. Raises Refused where another one goes on."""
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            with locked(home.driver_lock(study), wait=False):
                yield
                return
        except Busy as error:
            if time.monotonic() > deadline:
                raise Refused(
                    f"another driver works on study {study} in {home.root}: wait until it ends, "
                    f"or `stop {study}`",
                    1,
                ) from error
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
