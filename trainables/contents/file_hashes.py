"""Remembers what files held: those that did not change are not read again."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from trainables.dataset import DataError
from trainables.files import read_whole

log = logging.getLogger(__name__)
_AT_ONCE = 64  # files per task of a thread at most: singly, scheduling costs more than hashing
_THREADS = 8  # at least: reading waits for the disk; hashing releases the interpreter lock
_SETTLED_NS = 2_000_000_000  # a younger file may change again within one tick of its clock

Entry = list[Any]  # of hashes: [size, mtime in ns, sha256]
Progress = Callable[[int, int], None]  # files done, files in all
Given = TypeVar("Given")
Made = TypeVar("Made")


def unseen(done: int, total: int) -> None:
    """Show no progress."""


def file_hashes(files: Sequence[Path], manifest: Path, progress: Progress = unseen) -> list[str]:
    """Return the sha256 of each file's content in hexadecimal digits, in order.

    manifest: the file that remembers (path, size, mtime) → sha256; if damaged, it is written anew.
    progress: is called now and then. Raises DataError for a file that cannot be read.
    """
    known = read_entries(manifest)
    threads = max(_THREADS, cores())
    at_once = max(1, min(_AT_ONCE, len(files) // (4 * threads)))  # a few tasks for each thread
    chunks = [files[i : i + at_once] for i in range(0, len(files), at_once)]
    entries: list[tuple[str, Entry]] = []
    for hashed in in_threads(lambda chunk: _hash(chunk, known), chunks, threads):
        entries += hashed
        progress(len(entries), len(files))
    settled = time.time_ns() - _SETTLED_NS
    fresh = {path: entry for path, entry in entries if entry[1] < settled}
    if any(known.get(path) != entry for path, entry in fresh.items()):
        write_entries(manifest, known | fresh)
    return [entry[2] for _, entry in entries]


def _hash(files: Sequence[Path], known: dict[str, Entry]) -> list[tuple[str, Entry]]:
    entries = []
    for file in files:
        path = os.path.abspath(file)
        stat = os.stat(path)
        entry = known.get(path)
        if entry is None or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
            content = hashlib.sha256(read_whole(Path(path))).hexdigest()
            entry = [stat.st_size, stat.st_mtime_ns, content]
        entries.append((path, entry))
    return entries


def as_remembered(files: Sequence[Path], memory: Path) -> bool:
    """Tell whether files have the sizes, times and places on the disk that `remember` has seen."""
    try:
        return bool(json.loads(memory.read_bytes()) == _on_disk(files))
    except (OSError, ValueError):  # nothing is remembered, or that is damaged
        return False


def remember(files: Sequence[Path], memory: Path) -> None:
    """Write sizes, times and places of files that were just read whole. Nothing is written of files
    that are so young that they may change unseen, or where writing fails: they are read again."""
    found = _on_disk(files)
    if any(max(times) > time.time_ns() - _SETTLED_NS for _, _, *times in found):
        return
    temporary = memory.with_name(f"{memory.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(found), encoding="utf-8")
        os.replace(temporary, memory)
    except OSError as error:
        log.debug("%s is not written: %s", memory, error)


def _on_disk(files: Sequence[Path]) -> list[list[int]]:
    stats = [os.stat(file) for file in files]
    return [[stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for stat in stats]


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def in_threads(
    read: Callable[[Given], Made], given: Sequence[Given], threads: int
) -> Iterable[Made]:
    """Yield what `read` makes of each item, in order. Raises DataError where it raises OSError."""
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(read, given)
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename} ({error.strerror}): repair or remove it"
        ) from error


def masks_manifest(manifest: Path) -> Path:
    """Return the manifest of the masks of a data set, beside that of its images."""
    return manifest.with_name(f"{manifest.stem}-masks{manifest.suffix}")


def read_entries(manifest: Path) -> dict[str, Entry]:
    """Read a manifest, whose first line is the checksum of the rest; empty if absent or damaged."""
    with contextlib.suppress(FileNotFoundError):
        checksum, _, body = manifest.read_bytes().partition(b"\n")
        if checksum == hashlib.sha256(body).hexdigest().encode():
            entries: dict[str, Entry] = json.loads(body)
            return entries
    return {}


def write_entries(manifest: Path, entries: dict[str, Entry]) -> None:
    """Write a manifest, whole or not at all."""
    body = json.dumps(entries).encode()
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=manifest.parent, delete=False) as stream:
        stream.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    os.replace(stream.name, manifest)
