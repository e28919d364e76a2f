"""Shows those who follow a driver what it tells, and how long its study still takes.

What it tells (warnings, what waits and why, what starts again) is kept in a file of the home, so
that it is heard within seconds, also while MLflow is away.
"""

import json
import logging
import queue
import threading
import time
from collections import deque
from pathlib import Path

from orchestrator.planning.estimates import Task, epochs_of, kind_of, known_times, last_end
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import duration
from orchestrator.storage.record_shapes import current_progress
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import RunState, Submission, load
from orchestrator.tracking.tags import Tag

_NEWS = 4  # last lines, which stand below the table
_SLOW_SECONDS = 2.0  # after which it is said that MLflow does not answer


class Teller(logging.Handler):
    """Writes what a driver warns of, and what is marked with TOLD, to a file of events: a line of
    JSON each, `time` (s since 1970) and `text`. A file that cannot be written ends nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.INFO)
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and not getattr(record, "told", False):
            return
        try:
            line = json.dumps({"time": record.created, "text": record.getMessage()})
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError:
            self.handleError(record)


class Told:
    """Reads a file of events as it grows. Where there is none, as with a driver on another machine,
    it takes what the driver has written into MLflow."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self._tagged: list[bytes] = []
        self._seen: set[bytes] = set()

    def hear(self, tag: str) -> None:
        """Take what the tag NEWS of the submission says."""
        self._tagged = [line.encode() for line in tag.splitlines()]

    def new(self) -> list[str]:
        """Return the events since the last call, such as `14:03:07 A seed 0: waits for room`."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                *whole, _ = file.read().split(b"\n")
        except FileNotFoundError:
            whole = [line for line in self._tagged if line not in self._seen]
            self._seen.update(whole)
        else:
            self._read += sum(len(line) + 1 for line in whole)
        found = []
        for line in whole:
            try:
                event = json.loads(line)
                clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
                found.append(f"{clock} {event['text']}")
            except (ValueError, KeyError, TypeError):  # cut by a full disk
                continue
        return found


class News:
    """Collects what the driver tells, and whether MLflow answers; the last lines stand below the
    table."""

    def __init__(self, told: Told) -> None:
        self._told, self._away = told, False
        self._pending: list[str] = []
        self.last: deque[str] = deque(maxlen=_NEWS)

    def hear(self, tag: str) -> None:
        """Take what the driver has written into MLflow."""
        self._told.hear(tag)

    def mlflow_is_away(self, error: TrackingError | None = None) -> None:
        """Say once that MLflow does not answer. error: None while it is still waited for."""
        if not self._away:
            self._away = True
            what = "refuses" if error and error.answered else "does not answer"
            self._say(f"MLflow {what}; the study goes on, what is shown is older")

    def mlflow_answers(self) -> None:
        """Say once that it answers again."""
        if self._away:
            self._away = False
            self._say("MLflow answers again")

    def _say(self, text: str) -> None:
        self._pending.append(f"{time.strftime('%H:%M:%S')} {text}")

    def read(self) -> list[str]:
        """Return what is new since the last call."""
        new, self._pending = [*self._told.new(), *self._pending], []
        self.last.extend(new)
        return new


class Look:
    """Asks MLflow for the submission of a job, in a thread of its own: where MLflow is slow to
    answer, or frozen, that is said within seconds, and no other news waits for it."""

    def __init__(self, tracker: Tracker, study: str, job_id: str, news: News) -> None:
        self._tracker, self._of, self._news = tracker, (study, job_id), news
        self._answers: queue.Queue[Submission | Exception | None] = queue.Queue()
        self._asked: float | None = None  # when, while there is no answer
        self._took = 0.0  # seconds, of the last answer: that of a large study takes some
        self.submission: Submission | None = None  # None until the driver has opened it

    def now(self) -> Submission | None:
        """Return the submission as MLflow has it now, or as it was while MLflow does not answer."""
        asked = self._ask()
        wait = max(_SLOW_SECONDS, 2 * self._took) + asked - time.monotonic()
        self._take(max(wait, 0.1))
        if self._asked is not None:
            self._news.mlflow_is_away()
        return self.submission

    def last(self) -> Submission | None:
        """Return the submission as MLflow has it after this call, however long that takes; as it
        was where MLflow does not answer."""
        if self._asked is not None:
            self._take(None)
        self._ask()
        self._take(None)
        return self.submission

    def _ask(self) -> float:
        """Ask, where no answer is awaited. Returns since when one is."""
        if self._asked is None:
            self._asked = time.monotonic()
            threading.Thread(target=self._load, args=(self.submission,), daemon=True).start()
        return self._asked

    def _load(self, before: Submission | None) -> None:
        try:
            self._answers.put(_newest(self._tracker, *self._of, before))
        except Exception as error:  # raised, or told, by who waits
            self._answers.put(error)

    def _take(self, seconds: float | None) -> None:
        """Wait for the answer so long, None: until it comes."""
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return
        took, self._asked = time.monotonic() - (self._asked or 0.0), None
        if isinstance(answer, TrackingError):
            self._news.mlflow_is_away(answer)
        elif isinstance(answer, Exception):
            raise answer
        else:
            self._took, self.submission = took, answer
            self._news.mlflow_answers()
            if answer is not None:
                self._news.hear(answer.tracked.tags.get(Tag.NEWS, ""))


def _newest(
    tracker: Tracker, study: str, job_id: str, before: Submission | None
) -> Submission | None:
    """Return a job's submission with its Runs; its plan is read where it is not that of `before`.
    Raises TrackingError."""
    tracked = tracker.reader.submission_of(study, job_id)
    if tracked is None:
        return before
    version = tracked.tags.get(Tag.PLAN_VERSION)
    same = before is not None and before.tracked.tags.get(Tag.PLAN_VERSION) == version
    plan = before.plan if before and same else tracker.reader.plan(tracked)
    return load(tracker.reader, tracked, plan)


def time_left(submission: Submission, store: Store) -> str:
    """Return how long the submission still takes; empty where that is not known yet: a Run waits
    of whose kind none has run, or a search has not ended, whose Runs are not known."""
    slots = int(submission.tracked.tags.get(Tag.AT_ONCE, 0))
    ended = [item.run for item in submission.runs if item.state == State.FINISHED]
    unfinished = [item for item in submission.runs if item.state in (State.RUNNING, State.PENDING)]
    if not slots or any(search.state != State.FINISHED for search in submission.searches):
        return ""
    times = known_times(store, ended, [item.run for item in unfinished])
    tasks = []
    for item in unfinished:
        left = item.progress.get("seconds_left") if item.state == State.RUNNING else None
        if left is not None:
            tasks.append(Task(item.run.key, item.run.parent, left, running=True))
            if (epochs := epochs_of(item.run) - item.progress.get("done", 0.0)) > 0:
                times.paces.setdefault(kind_of(item.run), left / epochs)
    known = {task.key for task in tasks}
    for item in unfinished:
        if item.run.key in known:
            continue
        seconds = times.seconds(item.run, 0 if item.run.artifacts else epochs_done(item))
        if seconds is None:
            return ""
        tasks.append(Task(item.run.key, item.run.parent, seconds, item.state == State.RUNNING))
    return f"about {duration(last_end(tasks, slots))} left" if tasks else ""


def epochs_done(item: RunState) -> int:
    """Return the epochs that a Run has finished, or images that a producer has."""
    if item.run.artifacts:
        return int(item.fact(Tag.IMAGES) or current_progress(item.progress).get("done", 0))
    if item.tracked is not None and Tag.EPOCHS in item.tracked.tags:
        return int(item.tracked.tags[Tag.EPOCHS])
    return int(current_progress(item.progress).get("done", 0))
