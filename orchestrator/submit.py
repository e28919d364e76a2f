"""One submission from its plan to its comparison.

Runs as the driver of a Ray job: `python -m orchestrator.submit job.json`.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray
import yaml

from orchestrator.cluster import at_once, share_of
from orchestrator.code_version import tree_version
from orchestrator.faults import Refused, UserError
from orchestrator.home import Busy, Home, locked
from orchestrator.jobs import Job
from orchestrator.launch import cluster_nodes
from orchestrator.mirror import Mirror
from orchestrator.plan import digest, to_plain
from orchestrator.prepare import Prepared, build_caches, prepare, remember
from orchestrator.report import write_comparison
from orchestrator.results import newest
from orchestrator.store import Store
from orchestrator.study import from_mapping
from orchestrator.tracking import TrackedRun, Tracker
from orchestrator.walk import Walk

log = logging.getLogger("orchestrator")
_DRAIN_SECONDS = 120.0
_HANDOVER_SECONDS = 60.0


def main(path: str) -> int:
    """The driver. Returns the exit status: 0 all Runs finished, 1 some did not."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    try:
        return run(job)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def run(job: Job) -> int:
    """Make the plan where the data is, and walk it."""
    if job.tree != tree_version():
        raise Refused("driver and command run different code: install the same on both", 1)
    home = Home(Path(job.home)).create()
    study = from_mapping(job.study)
    with _only_driver(home, study.name):
        address = os.environ["RAY_ADDRESS"]  # set by Ray for every job
        # Train's own clean-up actor looks for the cluster's address in the runtime environment
        environment = {"env_vars": {"RAY_ADDRESS": address}}
        ray.init(address, runtime_env=environment, logging_level="WARNING")
        with locked(home.planning, shared=True):
            prepared = prepare(study, Path(job.data_root) if job.data_root else None, home)
            nodes = cluster_nodes()
            share = share_of(study.resources, nodes)
            tables = build_caches(prepared, home, lambda name, done, total: None)
            tracker = Tracker(job.tracking_uri)
            submission = open_submission(tracker, prepared, job)
            remember(prepared, home)
        facts = {"study": study.name} | ({"git_commit": job.git_commit} if job.git_commit else {})
        mirror = Mirror(tracker, Store(home.store), submission, facts)
        walk = Walk(prepared, share, tables, home, mirror)
        mirror.start()
        states = walk.run(at_once(share, nodes))
        sent = mirror.stop(_DRAIN_SECONDS)
        return close_submission(tracker, submission, study.name, states, sent)


@contextmanager
def _only_driver(home: Home, study: str) -> Iterator[None]:
    """One driver walks a study, whatever cluster it is on. One that dies with its cluster may need
    a moment to go."""
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            with locked(home.root / f".walking-{study}.lock", wait=False):
                yield
                return
        except Busy as error:
            if time.monotonic() > deadline:
                raise Refused(f"another driver walks study {study} in {home.root}", 1) from error
            time.sleep(1.0)


def open_submission(tracker: Tracker, prepared: Prepared, job: Job) -> TrackedRun:
    """The MLflow run of this submission: the newest one goes on if its plan is the same."""
    study = prepared.study
    plan = digest(study, prepared.runs)
    ours = {"job": job.job_id, "cluster": job.cluster, "reason": ""}
    last = tracker.submissions(study.name, 1)
    if last and last[0].tags.get("plan") == plan:
        tracker.set_tags(last[0].run_id, ours)
        tracker.set_status(last[0].run_id, "RUNNING")
        return last[0]
    for half in tracker.submissions(study.name, kind="opening"):  # its driver died: we are the one
        tracker.set_status(half.run_id, "KILLED")
    tags = {"study": study.name, "plan": plan, "kind": "opening", **ours}
    if job.git_commit:
        tags["git_commit"] = job.git_commit
    run_id = tracker.create_run(tracker.experiment(study.name), f"submission {job.job_id}", tags)
    text = yaml.safe_dump(dict(study.mapping), sort_keys=False, allow_unicode=True)
    tracker.log_text(run_id, text, "study.yaml")
    tracker.log_text(run_id, json.dumps(to_plain(study, prepared.runs)), "plan.json")
    tracker.set_tags(run_id, {"kind": "submission"})  # from now on it is found, with its plan
    return tracker.run(run_id)


def close_submission(
    tracker: Tracker,
    submission: TrackedRun,
    study: str,
    states: Mapping[str, str],
    sent: bool,
) -> int:
    """Write the comparison, set the submission's status, return the exit status."""
    failed = sum(state != "FINISHED" for state in states.values())
    log.info("%d of %d Runs finished", len(states) - failed, len(states))
    if not sent:
        log.error("MLflow lacks some results; the next submit or status sends them")
        return 1
    found = newest(tracker, study)
    if found is not None:
        write_comparison(tracker, found)
    reason = f"{failed} of {len(states)} Runs did not finish" if failed else ""
    tracker.set_tags(submission.run_id, {"reason": reason})
    tracker.set_status(submission.run_id, "FAILED" if failed else "FINISHED")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
