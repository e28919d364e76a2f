"""A Run's state is what its process is: what a dead driver left RUNNING is settled here."""

from orchestrator.jobs import LOCAL, Jobs
from orchestrator.mirror import Mirror
from orchestrator.results import Submission, newest
from orchestrator.services import RayService, ServiceError
from orchestrator.store import Store
from orchestrator.tracking import Tracker

GONE = "its process is gone; submit the study again and it goes on"


def is_alive(submission: Submission, home_ray: RayService | None) -> bool:
    """Whether the submission's job waits or runs. home_ray: the home's own cluster, if it answers.

    Another cluster that does not answer may well be working: what it runs is left alone.
    """
    tags = submission.tracked.tags
    if tags.get("cluster", LOCAL) == LOCAL:
        return home_ray is not None and Jobs(home_ray).alive(tags["job"])
    try:
        return Jobs(RayService("", tags["cluster"], None, local=False)).alive(tags["job"])
    except ServiceError:
        return True


def settle(tracker: Tracker, store: Store, submission: Submission) -> Submission:
    """Make MLflow true for a submission whose job has ended: results that the store has are sent,
    Runs without a process become KILLED. Returns the submission as it stands then."""
    tracked = submission.tracked
    mirror = Mirror(tracker, store, tracked, {"study": str(submission.plan["study"])})
    touched = False
    for item in submission.runs:
        done = store.result(item.run.key) is not None
        if item.state == "RUNNING" or (done and item.state != "FINISHED"):
            mirror.follow(item.run, ("FINISHED", "") if done else ("KILLED", GONE))
            touched = True
    if not touched and tracked.status != "RUNNING":
        return submission
    mirror.flush()
    if tracked.status == "RUNNING":
        left = [item for item in submission.runs if store.result(item.run.key) is None]
        tracker.set_tags(tracked.run_id, {"reason": "its driver is gone" if left else ""})
        tracker.set_status(tracked.run_id, "KILLED" if left else "FINISHED")
    return newest(tracker, str(submission.plan["study"])) or submission
