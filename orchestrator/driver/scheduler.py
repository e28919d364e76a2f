"""Train the Runs of a plan: launch each one when its parent has finished, when no other process
trains the same, and when the cluster has room."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

from orchestrator.driver.retries import Retries
from orchestrator.execution.failures import Death, Ending, Outcome
from orchestrator.execution.launcher import launch
from orchestrator.execution.resources import Requests, wait_for_room
from orchestrator.execution.task import Task
from orchestrator.mirror.owners import OwnedKey, Owners
from orchestrator.needs.resources import Resources
from orchestrator.objects.contract import ObjectsError
from orchestrator.planning.placement import ResourceRequest
from orchestrator.planning.plan import PlannedRun
from orchestrator.planning.prepare import Prepared
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.sharing.turns import Turns
from orchestrator.storage.home import Home
from orchestrator.storage.run_log import TOLD
from orchestrator.storage.run_records import StaleWriter, Store
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync

log = logging.getLogger("orchestrator")
_POLL_SECONDS = 1.0


class Scheduler:
    """Trains the Runs of one submission, several at once."""

    def __init__(
        self,
        prepared: Prepared,
        starts: "Starts",
        tables: Mapping[str, Path],
        home: Home,
        sync: MlflowSync,
        job: str,
    ) -> None:
        """starts: says which Run starts next; tables: fingerprint → folder of the decoded images;
        job: id of this Ray job."""
        self.job = job
        self.prepared, self.starts, self.tables = prepared, starts, tables
        self.home, self.sync, self.store = home, sync, Store(home.store)
        self.owners = Owners(self.store)
        self._study = prepared.study.name
        self.states: dict[str, State] = {}  # key → FINISHED, FAILED, KILLED or BLOCKED
        self.running: dict[Future[State | None], PlannedRun] = {}  # what trains now
        self._owner_names: dict[str, str] = {}  # key → the process that trains it
        self._told: dict[str, str] = {}  # key → the process that trains it, as last logged

    def run(self) -> dict[str, State]:
        """Train what the plan has left. Returns how every Run ended, those of earlier calls too.
        As many train at once as the nodes hold, which come and go. Raises DoesNotFit."""
        waiting, running = self._planned(), self.running
        with ThreadPoolExecutor(max_workers=max(1, len(waiting))) as pool:
            while waiting or running:
                waiting = [item for item in waiting if not self._skip(item)]
                ready = [item for item in waiting if self._is_ready(item.run)]
                for item, request in self.starts.among(ready, self._resources):
                    if lock := self._acquire(item.run):
                        waiting.remove(item)
                        self.starts.took(item.run, request)
                        running[pool.submit(self._train, item.run, request, lock)] = item
                done, _ = wait(running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                if not running and waiting:
                    time.sleep(_POLL_SECONDS)
                for future in done:
                    item, state = running.pop(future), future.result()
                    self.starts.ended(item.run)
                    if state is None:  # another process trains it
                        waiting.append(item)
                    else:
                        self.states[item.run.key] = state
        self.starts.rest()
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

    def _resources(self, run: Run) -> Resources:
        """Return what its stage asks for."""
        stages = self.prepared.study.stages
        return next(stage.resources for stage in stages if stage.name == run.stage)

    def _is_ready(self, run: Run) -> bool:
        return run.parent is None or self.states.get(run.parent) == State.FINISHED

    def _acquire(self, run: Run) -> OwnedKey | None:
        """Acquire a Run's key; None while another study, or another label here, has it."""
        try:
            lock = self.owners.acquire(run.key, f"study {self.prepared.study.name}")
        except ObjectsError as error:
            self._tell(run, f"waits: {error}")
            return None
        except OSError as error:
            reason = f"the store cannot be written: {error}"
            log.error("%s: %s", run.name, reason)
            self.sync.end(run, RunEnd(State.FAILED, reason))
            self.states[run.key] = State.FAILED  # so it is not tried again
            return None
        if lock is None:
            owner = self.owners.owner(run.key) or "another study"
            self._owner_names[run.key] = owner
            self._tell(run, f"waits for {owner}, which trains the same Run")
        return lock

    def _tell(self, run: Run, words: str) -> None:
        """Tell why a Run waits, once."""
        if self._told.get(run.key) != words:
            self._told[run.key] = words
            log.info("%s: %s", run.name, words, extra=TOLD)

    def _train(self, run: Run, request: ResourceRequest, lock: OwnedKey) -> State | None:
        """Train one Run, again after its process died. Returns how it ended; None when another
        process has begun a newer attempt."""
        with lock:
            try:
                if self._is_done(run):
                    self.sync.follow(run, RunEnd(State.FINISHED))
                    return State.FINISHED
                outcome, attempt = self._attempts(run, request, lock)
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
        log.info("%s: trained by %s", run.name, self._owner_names.get(run.key, "another study"))
        return True

    def _note_end(self, run: Run, attempt: int, state: State, reason: str) -> None:
        """Note in the store how a Run ended: the next submit or status sends it if this driver
        cannot."""
        try:
            self.store.run(run.key).writer(attempt).end(state, reason, self.job)
        except OSError as error:
            log.warning("%s: how it ended could not be stored: %s", run.name, error)

    def _attempts(self, run: Run, request: ResourceRequest, owned: OwnedKey) -> tuple[Outcome, int]:
        """Make attempts until one ends by itself, or too many have died without progress. Returns
        the last one's outcome and number."""
        folder = self.store.run(run.key)
        retries = Retries(folder, self._resources(run).max_failures)
        while True:
            if not wait_for_room(request, run.name, self.starts.requests.patient):
                lost = "the cluster has lost a node that it needs"
                return Outcome(Ending.KILLED, lost, Death.NODE), folder.attempt()
            try:
                attempt = owned.begin_attempt()
            except StaleWriter as error:
                return Outcome(Ending.SUPERSEDED, str(error)), folder.attempt()
            self.sync.follow(run)
            told = TOLD if attempt > 1 else None
            log.info("%s: attempt %d starts", run.name, attempt, extra=told)
            options = {"gpus": request.gpus, "objects": self.owners.address}
            task = Task.of(run, self._images_of(run), self.home.store, attempt, **options)
            title = f"{self._study}/{run.label}/{run.seed}"
            outcome = launch(task, request, self.home.ray_train, title=title)
            owned.collect()
            told = None if outcome.state is Ending.FINISHED else TOLD
            log.info("%s: %s %s", run.name, outcome.state, outcome.reason, extra=told)
            if outcome.state is Ending.KILLED and not retries.goes_on(outcome):
                return replace(outcome, reason=retries.explain(outcome)), attempt
            if outcome.state not in (Ending.KILLED, Ending.UNPLACED):
                return outcome, attempt

    def _images_of(self, run: Run) -> Path:
        """Return what a Run reads: decoded images; for a producer the files themselves, where the
        data set has a list of them."""
        files = self.tables.get(f"files-{run.dataset}") if run.artifacts else None
        return files or self.tables[run.dataset]


class Starts:
    """Chooses the Runs of a study that start now: nodes hold them, and it is the study's turn."""

    def __init__(self, requests: Requests, turns: Turns) -> None:
        """requests: what Runs get; turns: those of the study on its cluster."""
        self.requests, self._turns = requests, turns
        self._given: dict[str, ResourceRequest] = {}  # key of a Run that trains → what it got
        self._waits = ""  # what a Run waits for, as last logged

    def took(self, run: Run, request: ResourceRequest) -> None:
        """Note that a Run starts."""
        self._given[run.key] = request
        self._turns.took(request)

    def ended(self, run: Run) -> None:
        """Note that a Run does not train any more."""
        del self._given[run.key]

    def rest(self) -> None:
        """Say to the other studies that this one waits for nothing."""
        self._turns.announce([], self._given.values())

    def among(
        self, ready: Sequence[PlannedRun], resources: Callable[[Run], Resources]
    ) -> Iterator[tuple[PlannedRun, ResourceRequest]]:
        """Yield the Runs that may start now, with what they get. One that has started by then
        counts when the next is looked at. resources: what a Run asks for."""
        places = self.requests.places(self._given.values())
        runs = {item.run.stage: item.run for item in ready}
        sizes = {stage: self.requests.of(resources(run)) for stage, run in runs.items()}
        first = {stage: places.largest(found) for stage, found in sizes.items()}
        wanted = [request for item in ready if (request := first[item.run.stage])]
        self._turns.announce(wanted, self._given.values())
        closed = {stage for stage, request in first.items() if request is None}
        for item in ready:
            if self._turns.rests:
                return
            stage = item.run.stage
            if stage in closed:
                continue
            request = places.largest(sizes[stage])
            if request is None or not self._has_turn(item.run, request):
                closed.add(stage)
                continue
            yield item, request
            if item.run.key in self._given:
                places.take(request)
                self._waits = ""

    def _has_turn(self, run: Run, request: ResourceRequest) -> bool:
        words = self._turns.before(request, self.requests.nodes)
        if words and self._waits != words:
            log.info("%s: %s", run.name, words, extra=TOLD)
        self._waits = words or self._waits
        return not words
