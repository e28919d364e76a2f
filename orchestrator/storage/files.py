"""Write files whole or not at all, and hold locks that the kernel gives back."""

import errno
import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # the disk takes no more


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write whole or not at all: a temporary file beside it, synced, then renamed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a file; None where there is no file. One that is damaged is named in a warning
    and counts as none. Raises OSError when it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        log.warning("%s is damaged", path)
        return None
    return value


class Busy(Exception):
    """Somebody else holds the lock."""


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock that the kernel gives back when its process dies.

    shared: together with others who share it. Raises Busy when it is held and `wait` is false.
    """
    with path.open("a") as file:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(str(path)) from error
        yield
