"""Write files and folders whole or not at all, and hold locks that the kernel gives back.

Everything of a home is written through this file. A new file or folder is written under a
temporary name beside its place, then renamed: a reader sees the old one or the new one, never half.
The locks are flock(2), which a process loses when it dies, shared or exclusive, and their files
name their holder where that is of use; `filelock` has neither shared locks nor a holder's name.
"""

import errno
import fcntl
import filecmp
import json
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from trainables.files import NotAFile, only_files

log = logging.getLogger(__name__)
_named: set[tuple[str, int]] = set()  # damaged files, with the time at which they were written
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # the disk takes no more


@contextmanager
def replacing(path: Path, writer: object = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends well.

    writer: names the temporary file, so that the same writer writes over what it has left before;
    by default it is random. The block writes the file, and syncs it where it must survive a crash.
    """
    name = secrets.token_hex(4) if writer is None else writer
    temporary = path.with_name(f".{path.name}.{name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def keep_once(path: Path, other: Path) -> bool:
    """Make a file a second name, a hard link, of another one that is equal to it, so that both take
    the room of one. Returns whether they are one file now: not where they differ, or one is not
    there, or they lie on two disks."""
    try:
        if path.samefile(other):
            return True
        if not filecmp.cmp(path, other, shallow=False):
            return False
        with replacing(path) as temporary:
            os.link(other, temporary)
    except OSError as error:
        log.info("%s is kept beside %s: %s", path, other, error)
        return False
    return True


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write a value as JSON, whole or not at all, and synced to the disk. mode: permissions."""
    with replacing(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(handle)
            os.fchmod(handle, mode)


def read_json(path: Path, shape: Any = dict) -> dict[str, Any] | None:
    """Read a mapping; None where there is no file. A damaged file is named in one warning and
    counts as none. Raises OSError when the file cannot be read.

    shape: a TypedDict that says which keys the mapping must have, of which types; it may have more.
    """
    try:
        with open(path, "rb", buffering=0, opener=only_files) as file:  # a pipe never ends
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, NotAFile) as error:
        what = "a folder" if isinstance(error, IsADirectoryError) else error.strerror
        _name_damaged(path, f"it is {what}")
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        _name_damaged(path, "it is not JSON")
        return None
    try:
        _checker(shape).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        _name_damaged(path, f"{key}: {first['msg']}" if key else "it is not a mapping")
        return None
    return dict(value)


@cache
def _checker(shape: Any) -> "TypeAdapter[Any]":
    return TypeAdapter(shape)


def _name_damaged(path: Path, why: str) -> None:
    """Name a damaged file in a warning, once in this process as long as nobody writes it again."""
    with suppress(OSError):
        state = (str(path), path.stat().st_mtime_ns)
        if state not in _named:
            _named.add(state)
            log.warning("%s is damaged (%s)", path, why)


@contextmanager
def temporary_folder(final: Path, writer: object) -> Iterator[Path]:
    """Yield an empty folder beside `final`, for `replace_folder`; what is left of it goes.

    writer: names the folder, as in `replacing`.
    """
    folder = final.with_name(f".{final.name}.{writer}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def replace_folder(new: Path, final: Path) -> None:
    """Rename a folder to `final`, whose old content goes."""
    shutil.rmtree(final, ignore_errors=True)
    new.rename(final)


def sync_folder(folder: Path) -> None:
    """Flush the files of a folder, and its own entries, to the disk. A file that another thread
    has renamed meanwhile, such as a temporary one, needs no flush under its old name."""
    for path in (p for p in folder.iterdir() if p.is_file()):
        with suppress(FileNotFoundError):
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Busy(Exception):
    """Another process, or another part of this one, holds the lock."""


def lock_file(path: Path, shared: bool = False, wait: bool = True, mode: str = "a+") -> IO[str]:
    """Open a file and lock it until it is closed, or this process dies.

    shared: together with others who share it. mode: `a+` makes the file where there is none, `r`
    does not. Raises Busy when another one holds it and `wait` is false.
    """
    file = path.open(mode, encoding="utf-8")
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise Busy(str(path)) from error
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def locked(path: Path, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock for a block, as in `lock_file`."""
    with lock_file(path, shared, wait):
        yield


def write_secret(path: Path, secret: str) -> None:
    """Write a new file that only this user can read. Raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secret)
