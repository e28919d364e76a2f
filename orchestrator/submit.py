"""Walk the plan on Ray: skip what is done, train the rest, say what a failure blocks.

Runs as the driver of a Ray job: `python -m orchestrator.submit job.json`.
"""

import json
import logging
import os
import sys
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import ray
import yaml

from orchestrator.cluster import Node, Share, at_once, share_of
from orchestrator.code_version import tree_version
from orchestrator.faults import Refused, UserError
from orchestrator.home import Home
from orchestrator.jobs import Job
from orchestrator.launch import Outcome, launch
from orchestrator.mirror import Mirror
from orchestrator.plan import Planned, Run, digest, to_plain
from orchestrator.prepare import Prepared, build_caches, prepare, remember
from orchestrator.report import write_comparison
from orchestrator.results import newest
from orchestrator.store import Store
from orchestrator.study import from_mapping
from orchestrator.tracking import TrackedRun, Tracker
from orchestrator.worker import Task

log = logging.getLogger("orchestrator")
_DRAIN_SECONDS = 120.0


def main(path: str) -> int:
    """The driver. Returns the exit status: 0 all Runs finished, 1 some did not."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    job = Job(**json.loads(Path(path).read_text(encoding="utf-8")))
    try:
        return run(job)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1


def run(job: Job) -> int:
    """Make the plan where the data is, and walk it."""
    if job.tree != tree_version():
        raise Refused("driver and command run different code: install the same on both", 1)
    home = Home(Path(job.home)).create()
    study = from_mapping(job.study)
    prepared = prepare(study, Path(job.data_root) if job.data_root else None, home)
    address = os.environ["RAY_ADDRESS"]  # set by Ray for every job
    # Train's own clean-up actor looks for the cluster's address in the runtime environment
    ray.init(address, runtime_env={"env_vars": {"RAY_ADDRESS": address}}, logging_level="WARNING")
    nodes = cluster_nodes()
    share = share_of(study.resources, nodes)
    tables = build_caches(prepared, home, lambda name, done, total: None)
    tracker = Tracker(job.tracking_uri)
    submission = open_submission(tracker, prepared, job)
    remember(prepared, home)
    store = Store(home.store)
    facts = {"study": study.name} | ({"git_commit": job.git_commit} if job.git_commit else {})
    mirror = Mirror(tracker, store, submission, facts)
    walk = Walk(prepared, share, tables, home, mirror)
    mirror.start()
    states = walk.run(at_once(share, nodes))
    sent = mirror.stop(_DRAIN_SECONDS)
    return close_submission(tracker, submission, study.name, states, sent)


def cluster_nodes() -> list[Node]:
    """The living nodes of the cluster."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(item.get("CPU", 0.0), item.get("GPU", 0.0)) for item in found]


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
    tags = {"study": study.name, "plan": plan, **ours}
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


class Walk:
    """Launches Runs as soon as their parents are done and there is room for them."""

    def __init__(
        self,
        prepared: Prepared,
        share: Share,
        tables: Mapping[str, Path],
        home: Home,
        mirror: Mirror,
    ) -> None:
        self.prepared, self.share, self.tables = prepared, share, tables
        self.home, self.mirror, self.store = home, mirror, Store(home.store)
        self.states: dict[str, str] = {}  # key → FINISHED, FAILED, KILLED or BLOCKED

    def run(self, slots: int) -> dict[str, str]:
        """Returns how every Run ended."""
        waiting = self._verified()
        going: dict[Future[str], Run] = {}
        with ThreadPoolExecutor(max_workers=max(1, slots)) as pool:
            while waiting or going:
                waiting = [item for item in waiting if not self._skip(item)]
                for item in [item for item in waiting if self._ready(item.run)]:
                    if len(going) < slots and item.run.key not in {r.key for r in going.values()}:
                        waiting.remove(item)
                        going[pool.submit(self._train, item.run)] = item.run
                done, _ = wait(going, return_when=FIRST_COMPLETED)
                for future in done:
                    self.states[going.pop(future).key] = future.result()
        return self.states

    def _verified(self) -> list[Planned]:
        """The plan, in which a parent whose checkpoint turns out to be damaged is new again."""
        planned = list(self.prepared.planned)
        needed = {item.run.parent for item in planned if item.state != "done"}
        for place, item in enumerate(planned):
            key = item.run.key
            if item.state == "done" and key in needed and self.store.best(key) is None:
                log.warning("%s: its checkpoint is damaged, it is trained anew", item.run.name)
                self.store.forget(key)
                planned[place] = replace(item, state="new")
        return planned

    def _skip(self, item: Planned) -> bool:
        """Whether a Run needs no training: it is done, or can never begin."""
        run, parent = item.run, item.run.parent
        if item.state == "done" or self.states.get(run.key) == "FINISHED":
            log.info("%s: done already %s", run.name, item.why)
            self.states[run.key] = "FINISHED"
            self.mirror.follow(run, ("FINISHED", ""))
            return True
        if run.key in self.states:  # the same Run under another label, which failed
            return True
        if parent is not None and self.states.get(parent, "FINISHED") != "FINISHED":
            log.error("%s: blocked, its parent %s did not finish", run.name, item.run.parent_label)
            self.states[run.key] = "BLOCKED"
            return True
        return False

    def _ready(self, run: Run) -> bool:
        return run.parent is None or self.states.get(run.parent) == "FINISHED"

    def _train(self, run: Run) -> str:
        """Train one Run, again after its process died; returns how it ended."""
        outcome = Outcome("failed", "was not started")
        for _ in range(self.prepared.study.resources.max_failures + 1):
            attempt = self.store.claim(run.key)
            self.mirror.follow(run)
            log.info("%s: attempt %d starts", run.name, attempt)
            try:
                outcome = launch(self._task(run, attempt), self.share, self.home.root / "ray_train")
            except Exception as error:  # whatever happens to one Run, the others go on
                log.exception("%s: could not be launched", run.name)
                outcome = Outcome("failed", f"{type(error).__name__}: {error}")
            log.info("%s: %s %s", run.name, outcome.state, outcome.reason)
            if outcome.state != "killed":
                break
        state = outcome.state.upper()
        self.mirror.end(run, state, outcome.reason)
        return state

    def _task(self, run: Run, attempt: int) -> Task:
        return Task(
            key=run.key,
            attempt=attempt,
            label=run.label,
            trainable=run.trainable,
            config=run.config,
            seed=run.seed,
            table=str(self.tables[run.dataset]),
            store=str(self.home.store),
            parent=run.parent,
            parent_label=run.parent_label,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
