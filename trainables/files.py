"""Opens files of users, and nothing that only looks like a file: a pipe or a device never ends."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 4 * 2**30  # of a file that is read whole; no image of a data set is larger


class NotAFile(OSError):
    """Raised for a pipe, a device, a socket, and a file that is too large to be read whole."""


def only_files(path: str, flags: int) -> int:
    """Open a regular file: the `opener` of `open`. Anything else is not opened.

    Raises NotAFile, which names the path, and OSError as it comes.
    """
    _check(path, os.stat(path).st_mode)
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe put there now: no wait
    try:
        _check(path, os.fstat(handle).st_mode)
    except NotAFile:
        os.close(handle)
        raise
    return handle


def read_whole(path: Path) -> bytes:
    """Return the bytes of a regular file. Raises NotAFile, and OSError as it comes."""
    with open(path, "rb", buffering=0, opener=only_files) as file:
        content = file.read(MOST_BYTES + 1) if _size(file.fileno()) <= MOST_BYTES else None
    if content is None or len(content) > MOST_BYTES:
        raise NotAFile(errno.EFBIG, f"larger than {MOST_BYTES // 2**30} GiB", str(path))
    return content


def _size(handle: int) -> int:
    return os.fstat(handle).st_size


def _check(path: str, mode: int) -> None:
    kinds = {
        stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }  # fmt: skip
    if kind := kinds.get(stat.S_IFMT(mode)):
        raise NotAFile(errno.EINVAL, f"{kind}, not a file", str(path))
