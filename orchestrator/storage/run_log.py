"""A Run's own output: what a rank prints, logs, warns of or dies of, in a file of its own."""

import faulthandler
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import IO, Any

_PACKAGES = ("orchestrator", "trainables")
_LOG = re.compile(r"attempt_(\d+)_rank_(\d+)\.log")
_FATAL = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_TAIL_BYTES = 200_000  # the stacks of many threads may follow the cause


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Write what this process says to a file too, line by line; its traceback when it fails.

    Raises OSError where the file cannot be written.
    """
    file = path.open("a", encoding="utf-8", buffering=1)
    try:
        handler = logging.StreamHandler(_Both(sys.stderr, file))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        faulthandler.enable(file)
        out, err = _Both(sys.stdout, file), _Both(sys.stderr, file)
        with redirect_stdout(out), redirect_stderr(err), _logging_to(handler):
            yield
    except SystemExit:  # a search has stopped this trial
        file.write("stopped early\n")
        raise
    except BaseException:
        with suppress(OSError):  # a disk that is full must not hide what happened
            file.write(traceback.format_exc())
        raise
    finally:
        faulthandler.disable()
        with suppress(OSError) if sys.exc_info()[0] else nullcontext():
            file.close()


def fatal_signal(path: Path) -> str | None:
    """The last fatal error that a log tells of, such as `Segmentation fault`."""
    found = _FATAL.findall(tail(path))
    return str(found[-1]) if found else None


def tail(path: Path) -> str:
    """The end of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


class _Both:
    """Writes to two streams."""

    def __init__(self, first: IO[str], second: IO[str]) -> None:
        self._first, self._second = first, second

    def write(self, text: str) -> int:
        self._first.write(text)
        return self._second.write(text)

    def flush(self) -> None:
        self._first.flush()
        self._second.flush()

    def __getattr__(self, name: str) -> Any:  # encoding, isatty and whatever else is asked
        return getattr(self._first, name)


@contextmanager
def _logging_to(handler: logging.Handler) -> Iterator[None]:
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
    """(attempt, rank) → log file, oldest attempt first."""
    named = {path: match for path in folder.glob("*.log") if (match := _LOG.fullmatch(path.name))}
    return dict(sorted(((int(m[1]), int(m[2])), path) for path, m in named.items()))
