"""The MLflow run of a submission: open it, write its plan, close it."""

import json
import logging
from collections.abc import Mapping, Sequence

import yaml

from orchestrator.config.errors import Refused
from orchestrator.execution.ray_jobs import Job
from orchestrator.planning.plan import json_digest, to_plain
from orchestrator.planning.prepare import Prepared
from orchestrator.storage.home import Home
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker
from orchestrator.tracking.run_states import keep, load

log = logging.getLogger("orchestrator")


def log_plan(tracker: Tracker, run_id: str, prepared: Prepared) -> None:
    plan = to_plain(prepared.study, prepared.runs, prepared.keys)
    tracker.log_text(run_id, json.dumps(plan), "plan.json")
    tracker.set_tags(run_id, {"plan_version": json_digest(plan)})  # whoever follows reads it anew


def open_submission(tracker: Tracker, prepared: Prepared, job: Job, home: Home) -> TrackedRun:
    """The MLflow run of this submission: the home's newest one goes on if its plan is the same.

    The caller is the study's only driver: whatever else of it is RUNNING has lost its own.
    """
    study = prepared.study
    plan = prepared.request_digest
    ours = {"job": job.job_id, "cluster": job.cluster, "home": home.name, "reason": ""}
    mine = (plan, home.name)
    last = tracker.submissions(study.name, 1)
    same = [run for run in last if (run.tags.get("plan"), run.tags.get("home")) == mine]
    _close_lost(tracker, study.name, home, same)
    if same:
        tracker.set_tags(same[0].run_id, ours)
        tracker.set_status(same[0].run_id, "RUNNING")
        log_plan(tracker, same[0].run_id, prepared)
        for child in tracker.children(same[0]):  # it waits to be tried again
            if child.status in ("FAILED", "KILLED") and child.tags.get("kind") != "search":
                tracker.set_status(child.run_id, "SCHEDULED")
        return same[0]
    tags = {"study": study.name, "plan": plan, "kind": "opening", **ours}
    if job.git_commit:
        tags["git_commit"] = job.git_commit
    run_id = tracker.create_run(tracker.experiment(study.name), f"submission {job.job_id}", tags)
    text = yaml.safe_dump(dict(study.mapping), sort_keys=False, allow_unicode=True)
    tracker.log_text(run_id, text, "study.yaml")
    log_plan(tracker, run_id, prepared)
    tracker.set_tags(run_id, {"kind": "submission"})  # from now on it is found, with its plan
    return tracker.run(run_id)


def _close_lost(tracker: Tracker, study: str, home: Home, but: Sequence[TrackedRun]) -> None:
    """Set to KILLED what drivers that are no more have left RUNNING."""
    for kind in ("opening", "submission"):
        for lost in tracker.submissions(study, kind=kind):
            ours = lost.status == "RUNNING" and lost.tags.get("home") == home.name
            for run in tracker.tree(lost) if ours and lost not in but else []:
                if run.status in ("SCHEDULED", "RUNNING"):
                    tracker.set_tags(run.run_id, {"reason": "its driver is gone"})
                    tracker.set_status(run.run_id, "KILLED")


def close_submission(
    tracker: Tracker,
    submission: TrackedRun,
    states: Mapping[str, str],
    sent: bool,
) -> int:
    """Write the comparison, set the submission's status, return the exit status."""
    failed = sum(state != "FINISHED" for state in states.values())
    log.info("%d of %d Runs and searches finished", len(states) - failed, len(states))
    if not sent:
        raise Refused("MLflow lacks some results; the next submit or status sends them", 1)
    for child in tracker.children(submission):  # tried before, and this time not even begun
        if child.status == "SCHEDULED":
            tracker.set_tags(child.run_id, {"reason": "its turn never came"})
            tracker.set_status(child.run_id, "KILLED")
    found = load(tracker, tracker.run(submission.run_id))
    write_comparison(tracker, found)
    keep(tracker, found)
    reason = f"{failed} of {len(states)} Runs and searches did not finish" if failed else ""
    tracker.set_tags(submission.run_id, {"reason": reason})
    tracker.set_status(submission.run_id, "FAILED" if failed else "FINISHED")
    return 1 if failed else 0
