"""Run a plan: launch each Run when its parents are done, its key is free and there is room."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import IO

from orchestrator.execution.failures import Outcome
from orchestrator.execution.launcher import launch
from orchestrator.execution.resources import ResourceRequest, wait_for_room
from orchestrator.execution.task import Task
from orchestrator.planning.plan import PlannedRun
from orchestrator.planning.prepare import Prepared
from orchestrator.planning.run import Run
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.sync import Mirror

log = logging.getLogger("orchestrator")
_LOOK_SECONDS = 1.0


class Scheduler:
    """One submission's way through its plan."""

    def __init__(
        self,
        prepared: Prepared,
        share: ResourceRequest,
        tables: Mapping[str, Path],
        home: Home,
        mirror: Mirror,
        job: str,
    ) -> None:
        """tables: fingerprint → folder of the decoded images; job: id of this Ray job."""
        self.prepared, self.share, self.tables = prepared, share, tables
        self.home, self.mirror, self.store = home, mirror, Store(home.store)
        self.job = job
        self.states: dict[str, str] = {}  # key → FINISHED, FAILED, KILLED or BLOCKED
        self._waits: dict[str, str] = {}  # key → who trains it, as was last said

    def run(self, slots: int) -> dict[str, str]:
        """Returns how every Run ended, those of earlier calls too. slots: Runs at once."""
        waiting = self._verified()
        going: dict[Future[str | None], PlannedRun] = {}
        with ThreadPoolExecutor(max_workers=max(1, slots)) as pool:
            while waiting or going:
                waiting = [item for item in waiting if not self._skip(item)]
                for item in [item for item in waiting if self._ready(item.run)]:
                    if len(going) < slots and (owned := self._own(item.run)):
                        waiting.remove(item)
                        going[pool.submit(self._train, item.run, owned)] = item
                done, _ = wait(going, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED)
                if not going and waiting:
                    time.sleep(_LOOK_SECONDS)
                for future in done:
                    item, state = going.pop(future), future.result()
                    if state is None:  # somebody else has it
                        waiting.append(item)
                    else:
                        self.states[item.run.key] = state
        return self.states

    def _verified(self) -> list[PlannedRun]:
        """What of the plan was not walked yet. A parent whose checkpoint turns out to be damaged is
        new again."""
        planned = [item for item in self.prepared.planned if item.run.key not in self.states]
        needed = {item.run.parent for item in planned if item.state != "done"}
        for place, item in enumerate(planned):
            key = item.run.key
            if item.state == "done" and key in needed and self.store.run(key).best() is None:
                log.warning("%s: its checkpoint is damaged, it is trained anew", item.run.name)
                planned[place] = replace(item, state="new")
        return planned

    def _skip(self, item: PlannedRun) -> bool:
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

    def _own(self, run: Run) -> IO[str] | None:
        """The right to train a Run; None while another study, or another label here, has it."""
        try:
            owned = self.store.run(run.key).acquire(f"study {self.prepared.study.name}")
        except OSError as error:
            log.error("%s: the store cannot be written: %s", run.name, error)
            self.mirror.end(run, "FAILED", f"the store cannot be written: {error}")
            self.states[run.key] = "FAILED"  # which ends its waiting
            return None
        if owned is None:
            owner = self.store.run(run.key).owner() or "another"
            if self._waits.get(run.key) != owner:
                self._waits[run.key] = owner
                log.info("%s: waits for %s, which trains the same", run.name, owner)
        return owned

    def _train(self, run: Run, owned: IO[str]) -> str | None:
        """Train one Run, again after its process died. Returns how it ended; None when a newer
        attempt of somebody else has taken over."""
        with owned:
            try:
                if self._is_done(run):
                    self.mirror.follow(run, ("FINISHED", ""))
                    return "FINISHED"
                outcome, attempt = self._attempts(run)
            except Exception as error:  # whatever happens to one Run, the others go on
                log.exception("%s", run.name)
                outcome, attempt = Outcome("failed", f"{type(error).__name__}: {error}"), 0
            if outcome.state == "superseded":
                self.mirror.drop(run)
                return None
            state = outcome.state.upper()
            self.mirror.end(run, state, outcome.reason)
            if state != "FINISHED":
                self._keep_end(run, attempt, state, outcome.reason)
            return state

    def _is_done(self, run: Run) -> bool:
        """Whether somebody else has trained it by now. A result without its checkpoint goes."""
        if self.store.run(run.key).result() is None:
            return False
        if self.store.run(run.key).best() is None:
            self.store.run(run.key).forget()
            return False
        log.info("%s: trained by %s", run.name, self._waits.get(run.key, "another study"))
        return True

    def _keep_end(self, run: Run, attempt: int, state: str, reason: str) -> None:
        """For the next submit or status, should MLflow not hear of it from this one."""
        try:
            self.store.run(run.key).writer(attempt).end(state, reason, self.job)
        except OSError as error:
            log.warning("%s: its end could not be written down: %s", run.name, error)

    def _attempts(self, run: Run) -> tuple[Outcome, int]:
        """Attempt after attempt, until one ends by itself or too many have died. Returns the last
        one's outcome and number."""
        deaths = 0
        while True:
            if not wait_for_room(self.share, run.name):
                attempt = self.store.run(run.key).attempt()
                return Outcome("killed", "the cluster has lost a node that it needs"), attempt
            attempt = self.store.run(run.key).begin_attempt()
            self.mirror.follow(run)
            log.info("%s: attempt %d starts", run.name, attempt)
            outcome = launch(self._task(run, attempt), self.share, self.home.ray_train)
            log.info("%s: %s %s", run.name, outcome.state, outcome.reason)
            deaths += outcome.state == "killed"
            most = self.prepared.study.resources.max_failures
            if outcome.state != "unplaced" and (outcome.state != "killed" or deaths > most):
                return outcome, attempt

    def _task(self, run: Run, attempt: int) -> Task:
        return Task(
            key=run.key,
            attempt=attempt,
            label=run.label,
            trainable=run.trainable,
            config=run.config,
            seed=run.seed,
            table=str(self._pictures(run) if run.artifacts else self.tables[run.dataset]),
            store=str(self.home.store),
            parent=run.parent,
            parent_label=run.parent_label,
            gpus=self.share.gpus,
        )

    def _pictures(self, run: Run) -> Path:
        """What a producer looks at: the files where a data set has a list of them."""
        listing = self.tables.get(f"files-{run.dataset}")
        return listing or self.tables[run.dataset]
