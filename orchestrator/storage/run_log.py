"""The log of a Run: what a rank prints, logs and warns of, and the traceback it ends with.

Ray's own loggers write past it. Their handlers look up `sys.stderr` when they write, so they would
fill the log with Ray Train's messages.
"""

import faulthandler
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import (
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from pathlib import Path
from typing import IO, Any

_PACKAGES = ("orchestrator", "trainables")
_OTHER = "ray"  # the package whose messages are not the Run's
_LOG = re.compile(r"attempt_(\d+)_rank_(\d+)\.log")
TOLD = {"told": True}  # `log.info(..., extra=TOLD)`: those who follow the driver read it too
_FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
STALLED = "the process ends itself: "  # begins the last line of one that has stalled
_STALLED = re.compile(f"^{STALLED}(.+)$", re.MULTILINE)
_TAIL_BYTES = 200_000  # the stacks of many threads may follow the cause
_PLACE = re.compile(r"runs on host (\S+), node ([0-9a-f]+) of Ray$", re.MULTILINE)
_HEAD_BYTES = 20_000  # the place stands in one of the first lines


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Append what this process prints and logs to a file too, line by line; its traceback when the
    block fails. Raises OSError where the file cannot be written."""
    file = path.open("a", encoding="utf-8", buffering=1)
    try:
        handler = logging.StreamHandler(_Tee(sys.stderr, file))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        faulthandler.enable(file)
        out, err = _Tee(sys.stdout, file), _Tee(sys.stderr, file)
        with _others_write_to(sys.stderr), redirect_stdout(out), redirect_stderr(err):
            with _logging_to(handler):
                yield
    except SystemExit:  # a search has stopped this trial
        file.write("stopped early\n")
        raise
    except BaseException:
        with suppress(OSError):  # a full disk must not hide what happened
            file.write(traceback.format_exc())
        raise
    finally:
        faulthandler.disable()
        with suppress(OSError) if sys.exc_info()[0] else nullcontext():
            file.close()


def fatal_signal(path: Path) -> str | None:
    """Return the last fatal error that a log tells of, such as `Segmentation fault`."""
    errors = _FATAL.findall(tail(path))
    return str(errors[-1]) if errors else None


def stall(path: Path) -> str | None:
    """Return why a process ended itself, such as `no progress for 120 minutes`; None where it did
    not."""
    reasons = _STALLED.findall(tail(path))
    return str(reasons[-1]) if reasons else None


def place_in_words(host: str, node_id: str) -> str:
    """Return the line that tells where a rank runs, as `place_of` reads it. node_id: Ray's, hex."""
    return f"runs on host {host}, node {node_id} of Ray"


def place_of(path: Path) -> tuple[str, str] | None:
    """Return host and node (Ray's id, hex) on which a rank ran; None where its log does not
    tell."""
    try:
        with path.open("rb") as file:
            found = _PLACE.search(file.read(_HEAD_BYTES).decode("utf-8", "replace"))
    except FileNotFoundError:
        return None
    return (found[1], found[2]) if found else None


def tail(path: Path) -> str:
    """Return the last 200,000 bytes of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


class _Tee:
    """Writes to two streams, and is the first one for everything else."""

    def __init__(self, first: IO[str], second: IO[str]) -> None:
        self._first, self._second = first, second

    def write(self, text: str) -> int:
        self._first.write(text)
        return self._second.write(text)

    def flush(self) -> None:
        self._first.flush()
        self._second.flush()

    def __getattr__(self, name: str) -> Any:  # encoding, isatty and the like
        return getattr(self._first, name)


class _WriteTo(logging.Filter):
    """Makes a handler write Ray's records to a stream instead of its own. Ray Train gives the same
    handler to the root logger, so it is the record that decides."""

    def __init__(self, handler: logging.Handler, stream: IO[str]) -> None:
        super().__init__()
        self._handler, self._stream = handler, stream

    def filter(self, record: logging.LogRecord) -> bool:
        if not _is_of_another(record.name):
            return True
        self._stream.write(f"{self._handler.format(record)}\n")
        return False


def _is_of_another(logger: str) -> bool:
    return logger == _OTHER or logger.startswith(f"{_OTHER}.")


@contextmanager
def _others_write_to(stream: IO[str]) -> Iterator[None]:
    """Let what Ray's loggers write to the console go to a stream."""
    names = [name for name in logging.root.manager.loggerDict if _is_of_another(name)]
    loggers = [logging.root, *map(logging.getLogger, names)]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    with ExitStack() as undo:
        for handler in handlers:
            to_console = isinstance(handler, logging.StreamHandler)
            if to_console and not isinstance(handler, logging.FileHandler):
                redirect = _WriteTo(handler, stream)
                handler.addFilter(redirect)
                undo.callback(handler.removeFilter, redirect)
        yield


@contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
    """Let this project's loggers write to a handler, from INFO on, and to it alone."""
    loggers = [logging.getLogger(name) for name in _PACKAGES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


def named_logs(folder: Path) -> dict[tuple[int, int], Path]:
    """Return (attempt, rank) → log file, oldest attempt first."""
    named = {path: match for path in folder.glob("*.log") if (match := _LOG.fullmatch(path.name))}
    return dict(sorted(((int(m[1]), int(m[2])), path) for path, m in named.items()))
