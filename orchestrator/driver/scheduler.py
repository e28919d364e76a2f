"""Train the Runs of a plan: launch each one when its parent has finished, when no other process
trains the same, and when the cluster has room."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import IO

from orchestrator.driver.retries import Retries
from orchestrator.execution.failures import Death, Ending, Outcome
from orchestrator.execution.launcher import launch
from orchestrator.execution.resources import wait_for_room
from orchestrator.execution.task import Task
from orchestrator.planning.placement import ResourceRequest
from orchestrator.planning.plan import PlannedRun
from orchestrator.planning.prepare import Prepared
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.storage.home import Home
from orchestrator.storage.run_log import TOLD
from orchestrator.storage.run_records import Store
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync

log = logging.getLogger("orchestrator")
_POLL_SECONDS = 1.0


class Scheduler:
    """Trains the Runs of one submission, several at once."""

    def __init__(
        self,
        prepared: Prepared,
        request: ResourceRequest,
        tables: Mapping[str, Path],
        home: Home,
        sync: MlflowSync,
        job: str,
    ) -> None:
        """request: what every Run gets; tables: fingerprint → folder of the decoded images; job: id
        of this Ray job."""
        self.job = job
        self.patient = False  # as in `wait_for_room`
        self.prepared, self.request, self.tables = prepared, request, tables
        self.home, self.sync, self.store = home, sync, Store(home.store)
        self._study = prepared.study.name
        self.states: dict[str, State] = {}  # key → FINISHED, FAILED, KILLED or BLOCKED
        self.running: dict[Future[State | None], PlannedRun] = {}  # what trains now
        self._owners: dict[str, str] = {}  # key → the process that trains it, as last logged

    def run(self, slots: Callable[[], int]) -> dict[str, State]:
        """Train what the plan has left. Returns how every Run ended, those of earlier calls too.
        slots: how many Runs may train at once, which changes as nodes come and go."""
        waiting, running = self._planned(), self.running
        with ThreadPoolExecutor(max_workers=max(1, len(waiting))) as pool:
            while waiting or running:
                most = max(1, slots())
                waiting = [item for item in waiting if not self._skip(item)]
                for item in [item for item in waiting if self._is_ready(item.run)]:
                    if len(running) < most and (lock := self._acquire(item.run)):
                        waiting.remove(item)
                        running[pool.submit(self._train, item.run, lock)] = item
                done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                if not running and waiting:
                    time.sleep(_POLL_SECONDS)
                for future in done:
                    item, state = running.pop(future), future.result()
                    if state is None:  # another process trains it
                        waiting.append(item)
                    else:
                        self.states[item.run.key] = state
        return self.states

    def _planned(self) -> list[PlannedRun]:
        """Return what of the plan was not run yet. A parent whose checkpoint turns out to be
        damaged is new again."""
        planned = [item for item in self.prepared.planned if item.run.key not in self.states]
        parents = {item.run.parent for item in planned if item.state != "done"}
        for i, item in enumerate(planned):
            key = item.run.key
            if item.state == "done" and key in parents and self.store.run(key).best() is None:
                log.warning("%s: its checkpoint is damaged, it is trained again", item.run.name)
                planned[i] = replace(item, state="new")
        return planned

    def _skip(self, item: PlannedRun) -> bool:
        """Tell whether a Run needs no training: it is done, or can never start."""
        run, parent = item.run, item.run.parent
        if item.state == "done" or self.states.get(run.key) == State.FINISHED:
            log.info("%s: done already %s", run.name, item.why)
            self.states[run.key] = State.FINISHED
            self.sync.follow(run, RunEnd(State.FINISHED))
            return True
        if run.key in self.states:  # the same Run under another label, which failed
            return True
        if parent is not None and self.states.get(parent, State.FINISHED) != State.FINISHED:
            log.error("%s: blocked, its parent %s did not finish", run.name, run.parent_label)
            self.states[run.key] = State.BLOCKED
            return True
        return False

    def _is_ready(self, run: Run) -> bool:
        return run.parent is None or self.states.get(run.parent) == State.FINISHED

    def _acquire(self, run: Run) -> IO[str] | None:
        """Acquire the lock of a Run's key; None while another study, or another label here, holds
        it."""
        try:
            lock = self.store.run(run.key).acquire(f"study {self.prepared.study.name}")
        except OSError as error:
            reason = f"the store cannot be written: {error}"
            log.error("%s: %s", run.name, reason)
            self.sync.end(run, RunEnd(State.FAILED, reason))
            self.states[run.key] = State.FAILED  # so it is not tried again
            return None
        if lock is None:
            owner = self.store.run(run.key).owner() or "another study"
            if self._owners.get(run.key) != owner:
                self._owners[run.key] = owner
                words = "%s: waits for %s, which trains the same Run"
                log.info(words, run.name, owner, extra=TOLD)
        return lock

    def _train(self, run: Run, lock: IO[str]) -> State | None:
        """Train one Run, again after its process died. Returns how it ended; None when another
        process has begun a newer attempt."""
        with lock:
            try:
                if self._is_done(run):
                    self.sync.follow(run, RunEnd(State.FINISHED))
                    return State.FINISHED
                outcome, attempt = self._attempts(run)
            except Exception as error:  # one Run's error must not end the others
                log.exception("%s", run.name)
                outcome, attempt = Outcome(Ending.FAILED, f"{type(error).__name__}: {error}"), 0
            if outcome.state is Ending.SUPERSEDED:
                self.sync.drop(run)
                return None
            state = State(outcome.state.upper())
            self.sync.end(run, RunEnd(state, outcome.reason))
            if state != State.FINISHED:
                self._note_end(run, attempt, state, outcome.reason)
            return state

    def _is_done(self, run: Run) -> bool:
        """Tell whether another study has trained a Run meanwhile. A result without its checkpoint
        is removed."""
        folder = self.store.run(run.key)
        if folder.result() is None:
            return False
        if folder.best() is None:
            folder.forget()
            return False
        log.info("%s: trained by %s", run.name, self._owners.get(run.key, "another study"))
        return True

    def _note_end(self, run: Run, attempt: int, state: State, reason: str) -> None:
        """Note in the store how a Run ended: the next submit or status sends it if this driver
        cannot."""
        try:
            self.store.run(run.key).writer(attempt).end(state, reason, self.job)
        except OSError as error:
            log.warning("%s: how it ended could not be stored: %s", run.name, error)

    def _attempts(self, run: Run) -> tuple[Outcome, int]:
        """Make attempts until one ends by itself, or too many have died without progress. Returns
        the last one's outcome and number."""
        folder = self.store.run(run.key)
        retries = Retries(folder, self.prepared.study.resources.max_failures)
        while True:
            if not wait_for_room(self.request, run.name, self.patient):
                lost = "the cluster has lost a node that it needs"
                return Outcome(Ending.KILLED, lost, Death.NODE), folder.attempt()
            attempt = folder.begin_attempt()
            self.sync.follow(run)
            told = TOLD if attempt > 1 else None
            log.info("%s: attempt %d starts", run.name, attempt, extra=told)
            task, title = self._task(run, attempt), f"{self._study}/{run.label}/{run.seed}"
            outcome = launch(task, self.request, self.home.ray_train, title=title)
            told = None if outcome.state is Ending.FINISHED else TOLD
            log.info("%s: %s %s", run.name, outcome.state, outcome.reason, extra=told)
            if outcome.state is Ending.KILLED and not retries.goes_on(outcome):
                return replace(outcome, reason=retries.explain(outcome)), attempt
            if outcome.state not in (Ending.KILLED, Ending.UNPLACED):
                return outcome, attempt

    def _task(self, run: Run, attempt: int) -> Task:
        table = self._images_of(run)
        return Task.of(run, table, self.home.store, attempt, gpus=self.request.gpus)

    def _images_of(self, run: Run) -> Path:
        """Return what a Run reads: decoded images; for a producer the files themselves, where the
        data set has a list of them."""
        files = self.tables.get(f"files-{run.dataset}") if run.artifacts else None
        return files or self.tables[run.dataset]
