"""A Run's state is what its process is: what a dead driver left RUNNING is settled here."""

import time

from orchestrator.execution.ray_jobs import LOCAL, Jobs
from orchestrator.execution.services import RayService, ServiceError
from orchestrator.storage.files import Busy, locked
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker
from orchestrator.tracking.run_states import RunState, Submission, keep, load, newest
from orchestrator.tracking.sync import Mirror

_OTHERS_SECONDS = 5.0  # how long others may settle the same


def is_alive(submission: Submission, home: Home, home_ray: RayService | None) -> bool:
    """Whether the submission's job waits or runs. home_ray: the home's own cluster, if it answers.

    Another home's, or that of a cluster that does not answer, may well work: it is left alone.
    """
    tags = submission.tracked.tags
    if tags.get("cluster", LOCAL) == LOCAL and tags.get("home", home.name) != home.name:
        return True
    jobs = jobs_of(submission, home_ray)
    if jobs is None:
        return submission.tracked.tags.get("cluster", LOCAL) != LOCAL
    return jobs.alive(submission.tracked.tags["job"])


def ending(submission: Submission, home_ray: RayService | None) -> str:
    """Why a submission that is not alive is no more."""
    jobs = jobs_of(submission, home_ray)
    return jobs.ending(submission.tracked.tags["job"]) if jobs else "the Ray head is gone"


def jobs_of(submission: Submission, home_ray: RayService | None) -> Jobs | None:
    """The jobs of the cluster that the submission was sent to; None when it does not answer."""
    cluster = submission.tracked.tags.get("cluster", LOCAL)
    ray = home_ray if cluster == LOCAL else RayService("", cluster, None, local=False)
    try:
        return Jobs(ray) if ray else None
    except ServiceError:
        return None


def settle(tracker: Tracker, home: Home, submission: Submission, why: str) -> Submission:
    """Make MLflow true for a submission whose job has ended: what the store has is sent, and Runs
    without a process become KILLED. why: the job's end. Returns the submission as it stands then.

    Nothing is touched while a driver lives, whatever its cluster says: it holds the lock. Nor is
    anything of another home's, whose store and locks are not here.
    """
    study, job = str(submission.plan["study"]), submission.tracked.tags["job"]
    deadline = time.monotonic() + _OTHERS_SECONDS
    while True:
        try:
            with locked(home.driver_lock(study), wait=False):
                last = newest(tracker, study) or submission
                ours = last.tracked.tags.get("home", home.name) == home.name
                if ours and last.tracked.tags["job"] == job:
                    last = _settle(tracker, Store(home.store), last, why)
                return last
        except Busy:
            if time.monotonic() > deadline:
                return newest(tracker, study) or submission
            time.sleep(0.3)


def _settle(tracker: Tracker, store: Store, submission: Submission, why: str) -> Submission:
    tracked, study = submission.tracked, str(submission.plan["study"])
    mirror = Mirror(tracker, store, tracked, {"study": study})
    wrong = [(item, end) for item in submission.runs if (end := _end(store, tracked, item, why))]
    for item, end in wrong:
        mirror.follow(item.run, end)
    _end_searches(tracker, submission, why)
    if not wrong and tracked.status != "RUNNING":
        return submission
    for item in submission.runs:
        if _lacks_maps(store, item):  # the driver died before they were drawn
            mirror.follow(item.run, (item.state, ""))
    mirror.finish()
    after = load(tracker, tracker.run(tracked.run_id))
    if tracked.status == "RUNNING":
        whole = after.finished
        if whole:
            write_comparison(tracker, after)
            keep(tracker, after)
        tracker.set_tags(tracked.run_id, {"reason": "" if whole else why})
        tracker.set_status(tracked.run_id, "FINISHED" if whole else "KILLED")
    return newest(tracker, study) or after


def _lacks_maps(store: Store, item: RunState) -> bool:
    """Whether an MLflow run of its own lacks pictures that the store has something to draw of."""
    own = item.tracked is not None and item.tracked.tags["label"] == item.run.label
    finished = item.state == "FINISHED" and not item.fact("maps")
    return own and finished and store.run(item.run.key).features() is not None


def _end_searches(tracker: Tracker, submission: Submission, why: str) -> None:
    """Searches and trials without a driver are KILLED."""
    for item in submission.searches:
        if item.tracked is not None and item.state == "RUNNING":
            for run in [*tracker.children(item.tracked), item.tracked]:
                if run.status in ("SCHEDULED", "RUNNING"):
                    reason = f"{why}; submit the study again and it goes on"
                    tracker.set_tags(run.run_id, {"reason": reason})
                    tracker.set_status(run.run_id, "KILLED")


def _end(store: Store, submission: TrackedRun, item: RunState, why: str) -> tuple[str, str] | None:
    """State and reason of how a Run really ended; None where MLflow has it right."""
    run = store.run(item.run.key)
    # earlier versions wrote down the submission, where the job stands now
    known = run.ended(submission.tags["job"]) or run.ended(submission.run_id)
    if run.result() is not None:
        known = ("FINISHED", "")
    if known is None and item.run_id is not None and item.state in ("RUNNING", "PENDING"):
        return "KILLED", f"{why}; submit the study again and it goes on"
    return known if known and known[0] != item.state else None
