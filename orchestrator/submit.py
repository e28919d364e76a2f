"""One submission from its plan to its comparison.

Runs as the driver of a Ray job: `python -m orchestrator.submit job.json`.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
import yaml

from orchestrator.cluster import at_once, share_of
from orchestrator.code_version import tree_version
from orchestrator.faults import Refused, UserError
from orchestrator.home import NO_ROOM, Busy, Home, locked
from orchestrator.jobs import Job
from orchestrator.launch import cluster_nodes
from orchestrator.mirror import Mirror
from orchestrator.plan import digest_of, to_plain
from orchestrator.prepare import Prepared, build_caches, prepare, remember
from orchestrator.report import write_comparison
from orchestrator.results import keep, load
from orchestrator.search import Place
from orchestrator.searches import PlannedSearch
from orchestrator.searching import DRAIN_SECONDS, Searching, patiently
from orchestrator.store import Store
from orchestrator.study import from_mapping
from orchestrator.study_file import Study
from orchestrator.tracking import TrackedRun, Tracker
from orchestrator.walk import Walk

log = logging.getLogger("orchestrator")
_HANDOVER_SECONDS = 60.0


def main(path: str) -> int:
    """The driver. Returns the exit status: 0 all Runs finished, 1 some did not."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    try:
        return run(job)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"error: {error}; free some space", file=sys.stderr, flush=True)
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
        # all that must stay is on the disk already, so a stop need not wait for anything
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
        with locked(home.planning, shared=True):
            prepared = prepare(study, Path(job.data_root) if job.data_root else None, home)
            nodes = cluster_nodes()
            share = share_of(study.resources, nodes)
            tables = build_caches(prepared, home, lambda name, done, total: None)
            tracker = Tracker(job.tracking_uri)
            submission = patiently(lambda: open_submission(tracker, prepared, job, home))
            remember(prepared, home)
        facts = {"study": study.name} | ({"git_commit": job.git_commit} if job.git_commit else {})
        mirror = Mirror(tracker, Store(home.store), submission, facts)
        walk = Walk(prepared, share, tables, home, mirror)
        searching = Searching(tracker, submission, facts)
        mirror.start()
        try:
            slots = at_once(share, nodes)
            walk.run(slots)
            while planned := next_search(walk, searching):
                place = Place(home, share, slots, tables, job.job_id,
                              study.resources.max_failures)  # fmt: skip
                searching.carry_out(planned, place, planned.stage.name not in walk.prepared.pending)
                with locked(home.planning, shared=True):
                    walk.prepared = replan(study, job, home, tracker, submission)
                walk.run(slots)
        finally:
            sent = mirror.stop(DRAIN_SECONDS) and searching.sent
        ends = {**walk.states, **{name: state for name, (state, _) in searching.ended.items()}}
        ends |= {name: "BLOCKED" for name in walk.prepared.pending if name not in ends}
        return close_submission(tracker, submission, ends, sent)


def next_search(walk: Walk, searching: Searching) -> PlannedSearch | None:
    """A search of the plan that this submission has not seen to; one whose parent failed never
    begins."""
    for planned in walk.prepared.searches:
        if planned.stage.name in searching.ended:
            continue
        if planned.parent and walk.states.get(planned.parent.key) != "FINISHED":
            searching.block(planned, planned.parent.label)
            continue
        return planned
    return None


def replan(
    study: Study, job: Job, home: Home, tracker: Tracker, submission: TrackedRun
) -> Prepared:
    """The plan with what a search has found, kept where the last one was."""
    prepared = prepare(study, Path(job.data_root) if job.data_root else None, home)
    remember(prepared, home)
    patiently(lambda: _log_plan(tracker, submission.run_id, prepared))
    return prepared


def _log_plan(tracker: Tracker, run_id: str, prepared: Prepared) -> None:
    plan = to_plain(prepared.study, prepared.runs, prepared.keys)
    tracker.log_text(run_id, json.dumps(plan), "plan.json")
    tracker.set_tags(run_id, {"plan_version": digest_of(plan)})  # whoever follows reads it anew


@contextmanager
def _only_driver(home: Home, study: str) -> Iterator[None]:
    """One driver walks a study, whatever cluster it is on. One that dies with its cluster may need
    a moment to go."""
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            with locked(home.walking(study), wait=False):
                yield
                return
        except Busy as error:
            if time.monotonic() > deadline:
                raise Refused(f"another driver walks study {study} in {home.root}", 1) from error
            time.sleep(1.0)


def open_submission(tracker: Tracker, prepared: Prepared, job: Job, home: Home) -> TrackedRun:
    """The MLflow run of this submission: the home's newest one goes on if its plan is the same.

    The caller is the study's only driver: whatever else of it is RUNNING has lost its own.
    """
    study = prepared.study
    plan = prepared.asked
    ours = {"job": job.job_id, "cluster": job.cluster, "home": home.name, "reason": ""}
    mine = (plan, home.name)
    last = tracker.submissions(study.name, 1)
    same = [run for run in last if (run.tags.get("plan"), run.tags.get("home")) == mine]
    _close_lost(tracker, study.name, home, same)
    if same:
        tracker.set_tags(same[0].run_id, ours)
        tracker.set_status(same[0].run_id, "RUNNING")
        _log_plan(tracker, same[0].run_id, prepared)
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
    _log_plan(tracker, run_id, prepared)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
