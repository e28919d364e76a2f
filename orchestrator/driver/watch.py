"""Watch the Runs of a submission from a thread of its own, and tell of those that fail, stall or
collapse; and let MLflow know that the driver lives."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.notify.notifier import Notifier
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import duration
from orchestrator.storage.run_records import ATTEMPT, PROGRESS, RunFolder, Store
from orchestrator.tracking.mlflow_client import TrackingError
from orchestrator.tracking.run_states import Submission
from orchestrator.tracking.tags import Tag

log = logging.getLogger("orchestrator")
_PERIOD_SECONDS = 5.0
_BEAT_SECONDS = 30.0  # between two signs of life
_NEWS = 8  # events that MLflow has
_NEWS_LENGTH = 4000  # letters of them
_LISTED = 5  # Runs that the message of a study's end names
_COLLAPSED = "collapsed"  # in the warning of a Run: see `trainables.monitoring.collapse`


def tell_end(notifier: Notifier, submission: Submission, reason: str) -> None:
    """Tell how a study has ended, once for each job. reason: why it has not finished; empty where
    it has."""
    study, job = str(submission.plan["study"]), submission.tracked.tags[Tag.JOB]
    done = sum(item.state == State.FINISHED for item in submission.runs)
    counts = f"{done} of {len(submission.runs)} Runs finished"
    where = f"python -m orchestrator compare {study}"
    if not reason and submission.finished:
        notifier.tell("done", job, f"{study} is done", f"{counts}. The answer: {where}")
        return
    failed = [f"{item.run.name} {item.state.lower()}: {item.reason}" for item in submission.runs
              if item.state in (State.FAILED, State.KILLED)][:_LISTED]  # fmt: skip
    text = "\n".join(filter(None, [f"{counts}.", reason, *failed]))
    notifier.tell("failed", job, f"{study} has not finished", text)


class Heartbeat:
    """Lets MLflow know that the driver lives, what it tells, and what it waits for: commands on
    other machines see no file of the home. Nothing waits for it or fails by it."""

    def __init__(self, send: Callable[[Mapping[str, str]], object], events: Path) -> None:
        """send: sets tags of the submission; events: the file of what the driver tells."""
        self._send, self._events = send, events
        self._stop = threading.Event()
        self._tags: dict[str, str] = {Tag.WAITS: ""}
        self.holds: Callable[[], Mapping[str, str]] = dict  # tags of what the cluster has now
        self._sent: dict[str, str] = {}
        self._next = 0.0
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is left to be told, and end."""
        self._stop.set()
        self._thread.join()

    def waits(self, text: str) -> None:
        """Tell what the driver waits for; empty when it does not."""
        self._tags = {Tag.WAITS: text}

    def _loop(self) -> None:
        ended = False
        while not ended:
            self.beat()
            ended = self._stop.wait(_PERIOD_SECONDS)
        self.beat()

    def beat(self) -> None:
        """Send what is new, and a sign of life where the last one is old."""
        told = {**self._tags, **self.holds(), Tag.NEWS: self._news()}
        if told == self._sent and time.monotonic() < self._next:
            return
        try:
            self._send({**told, Tag.HEARTBEAT: f"{time.time():.0f}"})
        except TrackingError as error:
            log.debug("MLflow has not heard of the driver: %s", error)
            return
        self._sent, self._next = told, time.monotonic() + _BEAT_SECONDS

    def _news(self) -> str:
        """Return the last events, as lines of JSON."""
        try:
            lines = self._events.read_text(encoding="utf-8").splitlines()[-_NEWS:]
        except OSError:  # nothing was told yet
            return ""
        while lines and sum(map(len, lines)) > _NEWS_LENGTH:
            lines.pop(0)
        return "\n".join(lines)


class Planned(Protocol):
    """Has the Runs of a plan."""

    @property
    def runs(self) -> Sequence[Run]:
        """Return the Runs, parents first."""


class Watched(Protocol):
    """Trains Runs: the scheduler. states: key → how a Run ended."""

    states: dict[str, State]

    @property
    def prepared(self) -> Planned:
        """Return the plan as it is now."""


class Watch:
    """Looks at the store every few seconds. Training neither waits for it nor fails by it."""

    def __init__(self, store: Store, notifier: Notifier, job: str) -> None:
        """job: id of this Ray job."""
        self._store, self.notifier, self._job = store, notifier, job
        self._began = time.time()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, scheduler: Watched) -> None:
        """Begin to watch the Runs of a scheduler, also those that it gets later."""
        if self.notifier.settings is not None:
            self._thread = threading.Thread(target=self._loop, args=(scheduler,), daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look once more, and end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _loop(self, scheduler: Watched) -> None:
        ended = False
        while not ended:
            ended = self._stop.wait(_PERIOD_SECONDS)
            try:
                self.look(scheduler.prepared.runs, dict(scheduler.states))
            except Exception:  # the study goes on; the next look may be better
                log.exception("the Runs could not be watched")

    def look(self, runs: Sequence[Run], states: Mapping[str, State]) -> None:
        """Tell of what has happened since the last look."""
        for run in runs:
            folder, state = self._store.run(run.key), states.get(run.key)
            if state in (State.FAILED, State.KILLED):
                # once for a job: the study's end counts them
                ended = folder.ended(self._job)
                reason = ended[1] if ended else ""
                title = f"{run.name} {state.lower()}; the other Runs go on"
                self.notifier.tell("failed", f"{self._job} first", title, reason)
            elif self._is_recent(folder):
                self._look_at(run, folder, running=state is None)

    def _is_recent(self, folder: RunFolder) -> bool:
        """Return whether this driver has begun the Run's newest attempt."""
        path = folder.path / ATTEMPT
        return path.is_file() and path.stat().st_mtime >= self._began - 1

    def _look_at(self, run: Run, folder: RunFolder, running: bool) -> None:
        progress = folder.progress() or {}
        warning = str(progress.get("facts", {}).get(Tag.WARNING, ""))
        if _COLLAPSED in warning:
            title = f"{run.name}: the embedding has collapsed"
            self.notifier.tell("collapsed", run.key, title, warning)
        if not running:
            return
        times = [path.stat().st_mtime for name in (ATTEMPT, PROGRESS)
                 if (path := folder.path / name).is_file()]  # fmt: skip
        silent = time.time() - max(times)
        settings = self.notifier.settings
        if settings is not None and silent > 60 * settings.stalled_minutes:
            subject = f"{run.key} attempt {folder.attempt()}"
            title = f"{run.name} has reported nothing for {duration(silent)}"
            self.notifier.tell("stalled", subject, title, f"`logs` shows what it said: {run.key}")
