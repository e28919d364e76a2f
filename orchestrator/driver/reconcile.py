"""Reconcile MLflow with what is true once a submission's driver has died: a Run is in the state of
its process, and what the store has is sent."""

import time

from orchestrator.driver.watch import tell_end
from orchestrator.execution.ray_jobs import Jobs
from orchestrator.notify.notifier import Notifier
from orchestrator.report_page.store import write_report_if_possible
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import duration
from orchestrator.services.record import RayService, ServiceError
from orchestrator.storage.files import Busy, locked
from orchestrator.storage.home import LOCAL, Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    RunState,
    Submission,
    load,
    store_finished,
)
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync
from orchestrator.tracking.tags import Tag, owner_of

_LOCK_SECONDS = 5.0  # how long another process may reconcile the same study
_POLL_SECONDS = 0.3
_SILENCE_SECONDS = 120.0  # after which a driver that gives no sign of life is taken for dead


def is_alive(submission: Submission, home: Home, home_ray: RayService | None) -> bool:
    """Tell whether the submission's job waits or runs. home_ray: the home's own cluster, if it
    answers.

    A job of another home, or of a cluster that does not answer, may be running: it counts as alive
    as long as its driver gives signs of life.
    """
    tags = submission.tracked.tags
    cluster = tags.get(Tag.CLUSTER, LOCAL)
    if cluster == LOCAL and owner_of(tags, home.name) != home.name:
        return True
    jobs = jobs_of(submission, home_ray)
    if jobs:
        return jobs.alive(tags[Tag.JOB])
    return cluster != LOCAL and not is_silent(submission)


def is_silent(submission: Submission) -> bool:
    """Return whether a driver that gave signs of life gives none any more."""
    seconds = silence(submission)
    return seconds is not None and seconds > _SILENCE_SECONDS


def silence(submission: Submission) -> float | None:
    """Return how many seconds ago MLflow heard of the driver, by the clocks of both machines; None
    where it never did, as with drivers of earlier versions."""
    heard = submission.tracked.tags.get(Tag.HEARTBEAT)
    return None if heard is None else max(0.0, time.time() - float(heard))


def ending(submission: Submission, home_ray: RayService | None) -> str:
    """Say why a submission that is not alive has ended."""
    if jobs := jobs_of(submission, home_ray):
        return jobs.ending(submission.tracked.tags[Tag.JOB])
    cluster, seconds = submission.tracked.tags.get(Tag.CLUSTER, LOCAL), silence(submission)
    if cluster == LOCAL:
        return "the Ray head is gone"
    heard = f", and its driver was last heard of {duration(seconds)} ago" if seconds else ""
    return f"its cluster at {cluster} does not answer{heard}"


def jobs_of(submission: Submission, home_ray: RayService | None) -> Jobs | None:
    """Return the jobs of the cluster that the submission was sent to; None when the cluster does
    not answer."""
    cluster = submission.tracked.tags.get(Tag.CLUSTER, LOCAL)
    ray = home_ray if cluster == LOCAL else RayService("", cluster, None, local=False)
    try:
        return Jobs(ray) if ray else None
    except ServiceError:
        return None


def reconcile(tracker: Tracker, home: Home, submission: Submission, why: str) -> Submission:
    """Make MLflow true for a submission whose job has ended: what the store has is sent, and Runs
    without a process become KILLED. why: how the job ended. Returns the submission as it is then.

    Nothing is changed while a driver of the study lives, which holds the study's lock, whatever the
    cluster says of its job; nor for a submission to another home's own cluster, of which nothing is
    known here. Of a submission to a cluster whose store and locks are elsewhere, what has not ended
    in MLflow becomes KILLED; its next submit sends what that store has.
    """
    tags = submission.tracked.tags
    if tags.get(Tag.HOME, home.name) != home.name:
        if tags.get(Tag.CLUSTER, LOCAL) == LOCAL:
            return _again(tracker, submission)
        return _reconcile_elsewhere(tracker, submission, why)
    study, job = str(submission.plan["study"]), submission.tracked.tags[Tag.JOB]
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            with locked(home.driver_lock(study), wait=False):
                last = _again(tracker, submission)
                if last.tracked.tags[Tag.JOB] == job:
                    last = _reconcile(tracker, Store(home.store), last, why)
                return last
        except Busy:
            if time.monotonic() > deadline:
                return _again(tracker, submission)
            time.sleep(_POLL_SECONDS)


def _again(tracker: Tracker, submission: Submission) -> Submission:
    """Read a submission again."""
    return load(tracker.reader, tracker.reader.run(submission.tracked.run_id))


def _reconcile_elsewhere(tracker: Tracker, submission: Submission, why: str) -> Submission:
    last = _again(tracker, submission)
    tags = last.tracked.tags
    if last.tracked.status != State.RUNNING or tags[Tag.JOB] != submission.tracked.tags[Tag.JOB]:
        return last
    killed = f"{tags.get(Tag.REASON) or why}; submit the study again and it goes on"
    for run in tracker.reader.tree(last.tracked):
        tracker.writer.kill_if_open(run, killed)
    return _again(tracker, last)


def _reconcile(tracker: Tracker, store: Store, submission: Submission, why: str) -> Submission:
    tracked, study = submission.tracked, str(submission.plan["study"])
    why = tracked.tags.get(Tag.REASON) or why  # its driver has said so itself
    sync = MlflowSync(tracker, store, tracked, {Tag.STUDY: study})
    killed = f"{why}; submit the study again and it goes on"
    ends = [(item.run, _true_end(store, tracked, item, killed)) for item in submission.runs]
    wrong = [(run, end) for run, end in ends if end is not None]
    for run, end in wrong:
        sync.follow(run, end)
    _kill_searches(tracker, submission, killed)
    if not wrong and tracked.status != State.RUNNING:
        return submission
    for item in submission.runs:
        if _lacks_figures(store, item):  # the driver died before they were drawn
            sync.follow(item.run, RunEnd(item.state))
    sync.finish()
    after = load(tracker.reader, tracker.reader.run(tracked.run_id))
    if tracked.status == State.RUNNING:
        if after.finished:
            after = store_finished(tracker.writer, after)
            write_comparison(tracker, after)
            write_report_if_possible(tracker, after, {})
        reason, status = ("", State.FINISHED) if after.finished else (why, State.KILLED)
        tracker.writer.set_tags(tracked.run_id, {Tag.REASON: reason})
        tracker.writer.set_status(tracked.run_id, status)
        tell_end(Notifier.of_study(store.root.parent, study), after, reason)
    return _again(tracker, after)


def _lacks_figures(store: Store, item: RunState) -> bool:
    """Tell whether a finished Run's own MLflow run lacks figures that can be drawn from the
    store."""
    own = item.tracked is not None and item.tracked.tags[Tag.LABEL] == item.run.label
    lacks = item.state == State.FINISHED and not item.fact(Tag.FIGURES)
    return own and lacks and store.run(item.run.key).features() is not None


def _kill_searches(tracker: Tracker, submission: Submission, reason: str) -> None:
    """Set searches and trials without a driver to KILLED."""
    for item in submission.searches:
        if item.tracked is not None and item.state == State.RUNNING:
            for run in [*tracker.reader.children(item.tracked), item.tracked]:
                tracker.writer.kill_if_open(run, reason)


def _true_end(store: Store, submission: TrackedRun, item: RunState, killed: str) -> RunEnd | None:
    """Return how a Run really ended; None where MLflow has it right, or the Run has not started.
    killed: the reason where the Run has lost its process."""
    run = store.run(item.run.key)
    # earlier versions noted the submission instead of the job
    noted = run.ended(submission.tags[Tag.JOB]) or run.ended(submission.run_id)
    if run.result() is not None:
        end = RunEnd(State.FINISHED)
    elif noted is not None:
        end = RunEnd(State(noted[0]), noted[1])
    elif item.run_id is not None and item.state in (State.RUNNING, State.PENDING):
        return RunEnd(State.KILLED, killed)
    else:
        return None
    return end if end.state != item.state else None
