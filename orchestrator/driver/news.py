"""What a driver tells those who follow it: warnings, what waits and why, what starts again.

It is kept in a file of the home, so that it is heard within seconds, also while MLflow is away.
"""

import json
import logging
import time
from collections import deque
from pathlib import Path

from orchestrator.tracking.mlflow_client import TrackingError

_NEWS = 4  # last lines, which stand below the table


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
    """Reads a file of events as it grows."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def new(self) -> list[str]:
        """Return the events since the last call, such as `14:03:07 A seed 0: waits for room`; none
        where there is no file, as with a driver on another machine."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                *whole, _ = file.read().split(b"\n")
        except FileNotFoundError:
            return []
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
    """What the driver tells, and whether MLflow answers: the last lines stand below the table."""

    def __init__(self, told: Told) -> None:
        self._told, self._away = told, False
        self._pending: list[str] = []
        self.last: deque[str] = deque(maxlen=_NEWS)

    def mlflow_is_away(self, error: TrackingError) -> None:
        """Say once that MLflow does not answer."""
        if not self._away:
            self._away = True
            what = "refuses" if error.answered else "does not answer"
            self._say(f"MLflow {what}; the study goes on, and what is shown here is older")

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
