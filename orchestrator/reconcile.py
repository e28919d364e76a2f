"""A Run's state is what its process is: what a dead driver left RUNNING is settled here."""

from orchestrator.mirror import Mirror
from orchestrator.results import Submission, newest
from orchestrator.store import Store
from orchestrator.tracking import Tracker

GONE = "its process is gone; submit the study again and it goes on"


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
