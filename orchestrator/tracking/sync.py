"""Keep MLflow in step with the store, from a thread of its own.

The store comes first: nothing is lost while MLflow does not answer, nothing is logged twice, and
training never waits for MLflow.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from orchestrator.planning.run import Run
from orchestrator.rest.mlflow_api import INTERNAL
from orchestrator.storage.run_log import TOLD
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.publisher import Publisher
from orchestrator.tracking.run_sync import (
    Children,
    DataFacts,
    Identity,
    Phase,
    RunEnd,
    RunSync,
    SyncContext,
    identity,
)
from orchestrator.tracking.tags import Kind

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")
DRAIN_SECONDS = 600.0  # how long a driver waits for MLflow, which may take minutes to come back
_PERIOD_SECONDS = 2.0  # between two readings of the store
_WARNING_SECONDS = 30.0  # between two warnings that MLflow does not answer
_MOST_REFUSALS = 3  # in a row; after as many, `stop` does not wait for that Run
_MOST_FAILURES = 3  # of a server (500) in a row: a database that is busy for a moment is no refusal


class MlflowSync:
    """Sends the Runs of one submission, or the trials of one search, to MLflow."""

    def __init__(
        self,
        tracker: Tracker,
        store: Store,
        submission: TrackedRun,
        facts: Mapping[str, str],
        kind: Kind = Kind.RUN,
    ) -> None:
        """facts: tags that every Run of the submission carries. kind TRIAL: `submission` is a
        search, and its trials are sent without test figures."""
        self.tracker, self.store, self.submission = tracker, store, submission
        self._publisher = Publisher(tracker, store)
        children = Children(tracker, submission)
        data = DataFacts(tracker, submission)
        self._context = SyncContext(tracker, store, facts, kind, children, self._publisher, data)
        self._runs: dict[Identity, RunSync] = {}
        self._tags: dict[str, str] = {}  # of the submission itself, not sent yet
        self._tags_refusals = 0
        self._guard = threading.Lock()  # of all of the above
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._warned = 0.0

    # --- what the driver reports ---------------------------------------------------------------

    def follow(
        self,
        run: Run,
        end: RunEnd | None = None,
        upstream_values: Mapping[str, Any] | None = None,
        lineage: Sequence[Mapping[str, Any]] = (),
        first_key: str = "",
    ) -> None:
        """Send a Run that trains from now on, or that has ended before. upstream_values, lineage,
        first_key: as in `RunSync`."""
        with self._guard:
            sync = RunSync(self._context, run, end, upstream_values, lineage, first_key)
            self._runs[identity(run, first_key)] = sync

    def end(
        self,
        run: Run,
        end: RunEnd,
        upstream_values: Mapping[str, Any] | None = None,
        lineage: Sequence[Mapping[str, Any]] = (),
        first_key: str = "",
    ) -> None:
        """Send how a Run ended, whether it was followed or not. upstream_values, lineage,
        first_key: as in `RunSync`."""
        with self._guard:
            sync = self._runs.get(identity(run, first_key))
            # an end that was not sent yet, or that of the trial that continues this one
            if sync is None or sync.run.key != run.key or (sync.is_closed and sync.end != end):
                sync = RunSync(self._context, run, None, upstream_values, lineage, first_key)
                self._runs[identity(run, first_key)] = sync
            sync.end = end

    def drop(self, run: Run) -> None:
        """Send nothing more of a Run: another process trains it now."""
        with self._guard:
            del self._runs[identity(run)]

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the submission itself, with the next flush."""
        with self._guard:
            self._tags |= tags

    # --- sending -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send, every few seconds, from a thread."""
        self._thread.start()

    def stop(self, seconds: float) -> bool:
        """Stop when all that MLflow accepts is sent, or after `seconds`. Returns whether all is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._has_hope():
            time.sleep(0.1)
        self._stop.set()
        self._thread.join()
        self._publisher.render.close()
        return not self._unsent() and not self._tags

    def flush(self) -> None:
        """Send now what MLflow lacks. Raises TrackingError at the first call that it does not
        answer; a Run that it refuses does not keep the others waiting, and is raised at the end."""
        with self._guard:
            syncs = [sync for sync in self._runs.values() if sync.phase is not Phase.DONE]
            tags = dict(self._tags)
        if tags:
            self._send_tags(tags)
        refusal: TrackingError | None = None
        for sync in syncs:
            try:
                sync.advance()
                sync.refusals = 0
            except TrackingError as error:
                if not error.answered:
                    raise
                sync.refusals += 1
                refusal = error
        if refusal:
            raise refusal

    def finish(self) -> None:
        """Send all, like `flush`, and wait for the figures that are being drawn."""
        try:
            self.flush()
            while any(sync.phase is Phase.AWAITING_FIGURES for sync in self._runs.values()):
                self._publisher.render.wait()
                self.flush()
        finally:
            self._publisher.render.close()

    def _loop(self) -> None:
        while not self._stop.wait(_PERIOD_SECONDS):
            try:
                self.flush()
                if self._warned:
                    self._warned = 0.0
                    log.info("MLflow has all results again", extra=TOLD)
            except TrackingError as error:
                self._warn(error)
            except Exception:  # it is logged and tried again; `stop` returns False if it stays so
                log.exception("results could not be sent to MLflow")

    def _send_tags(self, tags: dict[str, str]) -> None:
        try:
            self.tracker.writer.set_tags(self.submission.run_id, tags)
        except TrackingError as error:
            self._tags_refusals += error.answered
            raise
        with self._guard:  # what was set meanwhile is sent next time
            self._tags = {name: v for name, v in self._tags.items() if tags.get(name) != v}

    def _has_hope(self) -> bool:
        """Return whether something is left to be sent that was not refused again and again."""
        refusals = [sync.refusals for sync in self._unsent()]
        if self._tags:
            refusals.append(self._tags_refusals)
        return any(count < _MOST_REFUSALS for count in refusals)

    def _unsent(self) -> list[RunSync]:
        with self._guard:
            syncs = list(self._runs.values())
        return [sync for sync in syncs if sync.end and sync.phase is not Phase.DONE]

    def _warn(self, error: TrackingError) -> None:
        if not self._warned or time.monotonic() - self._warned > _WARNING_SECONDS:
            self._warned = time.monotonic()
            log.warning("MLflow lacks results; training goes on, and it is tried again: %s", error)


def retry_mlflow(call: Callable[[], Answer]) -> Answer:
    """Repeat a call for some minutes while MLflow does not answer. Raises TrackingError after that,
    or when MLflow refuses: at once, or where it has failed itself after the third time."""
    deadline, failures = time.monotonic() + DRAIN_SECONDS, 0
    while True:
        try:
            return call()
        except TrackingError as error:
            failures += error.code == INTERNAL
            refuses = error.answered and (error.code != INTERNAL or failures >= _MOST_FAILURES)
            if refuses or time.monotonic() > deadline:
                raise
            what = "fails" if error.answered else "does not answer"
            log.warning("MLflow %s; it is tried again: %s", what, error)
            time.sleep(_PERIOD_SECONDS)
