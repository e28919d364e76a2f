"""One submission from its plan to its comparison.

Runs as the driver of a Ray job: `python -m orchestrator.driver.driver job.json`.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from orchestrator.config.errors import Refused, UserError
from orchestrator.config.study_loader import from_mapping
from orchestrator.config.study_schema import Study
from orchestrator.driver.scheduler import Scheduler
from orchestrator.driver.submission import close_submission, log_plan, open_submission
from orchestrator.execution.ray_jobs import Job
from orchestrator.execution.resources import at_once, cluster_nodes, share_of
from orchestrator.planning.code_version import tree_version
from orchestrator.planning.prepare import Prepared, build_caches, prepare, store_plan
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.storage.files import NO_ROOM, Busy, locked
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker
from orchestrator.tracking.sync import Mirror
from orchestrator.tuning.search_runner import DRAIN_SECONDS, SearchRunner, retry_mlflow
from orchestrator.tuning.tuner import SearchContext

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
            submission = retry_mlflow(lambda: open_submission(tracker, prepared, job, home))
            store_plan(prepared, home)
        facts = {"study": study.name} | ({"git_commit": job.git_commit} if job.git_commit else {})
        mirror = Mirror(tracker, Store(home.store), submission, facts)
        walk = Scheduler(prepared, share, tables, home, mirror, job.job_id)
        searching = SearchRunner(tracker, submission, facts)
        mirror.start()
        try:
            slots = at_once(share, nodes)
            walk.run(slots)
            while planned := next_search(walk, searching):
                place = SearchContext(home, share, slots, tables, job.job_id,
                              study.resources.max_failures)  # fmt: skip
                searching.run(planned, place, planned.stage.name not in walk.prepared.pending)
                with locked(home.planning, shared=True):
                    walk.prepared = replan(study, job, home, tracker, submission)
                walk.run(slots)
        finally:
            sent = mirror.stop(DRAIN_SECONDS) and searching.sent
        ends = {**walk.states, **{name: state for name, (state, _) in searching.ended.items()}}
        ends |= {name: "BLOCKED" for name in walk.prepared.pending if name not in ends}
        return close_submission(tracker, submission, ends, sent)


def next_search(walk: Scheduler, searching: SearchRunner) -> PlannedSearch | None:
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
    store_plan(prepared, home)
    retry_mlflow(lambda: log_plan(tracker, submission.run_id, prepared))
    return prepared


@contextmanager
def _only_driver(home: Home, study: str) -> Iterator[None]:
    """One driver walks a study, whatever cluster it is on. One that dies with its cluster may need
    a moment to go."""
    deadline = time.monotonic() + _HANDOVER_SECONDS
    while True:
        try:
            with locked(home.driver_lock(study), wait=False):
                yield
                return
        except Busy as error:
            if time.monotonic() > deadline:
                raise Refused(f"another driver walks study {study} in {home.root}", 1) from error
            time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
