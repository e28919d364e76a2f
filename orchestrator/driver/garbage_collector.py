"""Find and remove what no study's newest plan needs: checkpoints, caches, temporary folders.

Nothing is removed on a guess: a plan that cannot be read stops all of it; files whose names are not
ours stay, and so does what a process holds. Symbolic links are never followed: a store or a cache
that is a link lies elsewhere, and is left alone.
"""

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.config.errors import Refused
from orchestrator.planning.plan import UnknownPlan, from_plain
from orchestrator.planning.run import Run
from orchestrator.services.processes import alive
from orchestrator.services.record import Record
from orchestrator.storage.files import Busy, locked, read_json
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trials

log = logging.getLogger(__name__)
_KEY = re.compile(r"[0-9a-f]{20}")  # as a plan makes them; the store accepts other words too
_ATTEMPT = re.compile(r"([0-9a-f]{20})-\d+")
_CACHE = re.compile(r"([0-9a-f]{16})(\.tmp|\.lock)?")
_WRITING = re.compile(r"\.(epoch|spare)_\d+\.\d+")
_JSON = "done|done_copy|ended|origin|manifest|progress"
_RECORD = re.compile(rf"\.(progress|attempt|({_JSON})\.json)\.\w+")
_RECORD_SECONDS = 600.0  # writing one takes less; its writer need not hold the key's lock
_HIDDEN = ".clean-"  # prefix of what is being removed


@dataclass(frozen=True)
class Garbage:
    """A folder or a file that can be removed."""

    path: Path
    bytes: int  # on disk, the whole folder
    why: str
    # held while it is removed; raises Busy when a process has begun to use it
    guard: Callable[[], AbstractContextManager[None]] = field(
        default=nullcontext, repr=False, compare=False
    )
    rename: bool = field(default=True, repr=False, compare=False)  # a half removed one looks whole


def clean(home: Home, dry_run: bool) -> list[Garbage]:
    """Remove what no newest plan needs. Returns what was removed, or would be with `dry_run`.

    Raises Refused while a plan is being made, or when one cannot be read: nothing is removed then.
    """
    try:
        with locked(home.planning, wait=False):
            garbage = find_garbage(home)
            if dry_run:
                return garbage
            remove(garbage)
            return [item for item in garbage if not os.path.lexists(item.path)]
    except Busy as error:
        raise Refused(
            "a submit or another clean is under way: try again when it has ended", 1
        ) from error


def find_garbage(home: Home) -> list[Garbage]:
    """Find what no newest plan needs and no process uses now. Raises Refused when a plan cannot be
    read."""
    runs, store = _newest_runs(home), Store(home.store)
    keys = {path.name for path in _entries(home.store) if _is_key_folder(path)}
    in_use = {key for key in keys if store.run(key).owner() is not None}
    needed = {key for run in runs for key in (run.key, run.parent) if key is not None}
    needed |= _needed_by_searches(home, store)
    datasets = {run.dataset for run in runs}
    parts = (
        _in_store(store, keys - in_use, needed),
        # a training that is in no newest plan may read any cache
        _in_cache(home.cache, datasets, keep_others=bool(in_use - needed)),
        _in_ray_train(home.ray_train, store),
        _in_ray_temp(home),
    )
    return [item for part in parts for item in part]


def remove(garbage: Iterable[Garbage]) -> int:
    """Remove each item, unless a process has begun to use it. Returns the bytes freed."""
    freed = 0
    for item in garbage:
        try:
            with item.guard():
                _delete(item.path, item.rename)
            freed += item.bytes
        except Busy:
            log.info("%s is kept: it is in use", item.path)
        except FileNotFoundError:
            log.info("%s is gone already", item.path)
        except OSError as error:
            log.warning("%s could not be removed: %s", item.path, error)
    return freed


def _delete(path: Path, rename: bool) -> None:
    if not _is_folder(path):
        path.unlink()
        return
    if rename:
        hidden = tempfile.mkdtemp(prefix=_HIDDEN, dir=path.parent)
        path = path.rename(hidden)
    shutil.rmtree(path)


def _newest_runs(home: Home) -> list[Run]:
    """Return the Runs of every study's newest plan."""
    try:
        paths = sorted(path for path in home.plans.iterdir() if path.suffix == ".json")
    except OSError as error:
        raise Refused(f"nothing is removed: {home.plans}: {error.strerror}", 1) from error
    stored = [path for folder in (home.store, home.cache) for path in _entries(folder)]
    if stored and not paths:
        raise Refused(
            f"nothing is removed: {home.plans} has no plan, so it is not known what is needed: "
            "submit a study first",
            1,
        )
    return [run for path in paths for run in _runs(path)]


def _needed_by_searches(home: Home, store: Store) -> set[str]:
    """Return the keys of the newest plans' searches, and of the trials of searches that go on."""
    needed = set()
    for path in home.plans.glob("*.json"):
        plan = read_json(path) or {}
        for search in plan.get("searches", ()):
            if (key := search.get("key")) is not None:
                trials = Trials(store.run(key).path)
                ended = trials.have_found(search["count"])
                unfinished = () if ended else trials.all()
                needed |= {
                    key,
                    *(one for trial in unfinished for one in (trial.key, *trial.upstream)),
                }
    return needed


def _runs(path: Path) -> tuple[Run, ...]:
    try:
        return from_plain(read_json(path) or {})
    except UnknownPlan as error:
        raise Refused(
            f"nothing is removed: {path} is damaged or of another version: "
            f"submit the study {path.stem} again, or delete the file",
            1,
        ) from error


# --- where garbage lies ------------------------------------------------------------------------


def _in_store(store: Store, keys: Iterable[str], needed: Set[str]) -> Iterator[Garbage]:
    """Find checkpoints that are not needed, and what killed writers left. keys: of the store, those
    that no process has locked."""
    yield from _left_by_clean(store.root)
    for key in sorted(keys):
        folder, guard = store.run(key).path, partial(_owning, store, key)
        if key not in needed:
            yield _garbage(folder, "checkpoints of a Run that no newest plan has", guard)
            continue
        yield from _left_by_clean(folder)
        for path in _half_written(folder):
            yield _garbage(path, "left by a killed writer", guard)


def _half_written(folder: Path) -> Iterator[Path]:
    """Find in a Run's folder what writers that were killed have left."""
    entries = _entries(folder)
    yield from (path for path in entries if _WRITING.fullmatch(path.name) and _is_folder(path))
    places = [folder, *(path for path in entries if path.name.startswith(("epoch_", "spare_")))]
    for path in (path for place in places for path in _entries(place)):
        if _RECORD.fullmatch(path.name) and _age(path) > _RECORD_SECONDS:
            yield path


def _in_cache(folder: Path, needed: Set[str], keep_others: bool) -> Iterator[Garbage]:
    """Find unused and half built caches. keep_others: keep also whole ones that no newest plan
    uses."""
    yield from _left_by_clean(folder)
    names = [match[1] for path in _entries(folder) if (match := _CACHE.fullmatch(path.name))]
    for name in sorted(set(names)):
        final, building, lock = (folder / f"{name}{end}" for end in ("", ".tmp", ".lock"))
        if _is_held(lock):
            continue
        keep = name in needed or keep_others
        guard = partial(locked, lock, wait=False) if keep else partial(_dropping, lock)
        if _is_folder(building):
            yield _garbage(building, "left by a killed builder", guard)
        if keep:
            continue
        if _is_folder(final):
            yield _garbage(final, "cache of a data set that no newest plan uses", guard)
        elif lock.is_file() and not any(map(os.path.lexists, (final, building))):
            yield _garbage(lock, "lock of a cache that is gone", guard)


def _in_ray_train(folder: Path, store: Store) -> Iterator[Garbage]:
    yield from _left_by_clean(folder)
    for path in _entries(folder):
        match = _ATTEMPT.fullmatch(path.name)
        if match and _is_folder(path) and store.run(match[1]).owner() is None:
            guard = partial(_owning, store, match[1])
            yield _garbage(path, "Ray Train's records of an attempt that has ended", guard)


def _in_ray_temp(home: Home) -> list[Garbage]:
    """Find what Ray has left. Nothing while Ray starts or stops: its new session is not yet the
    latest one then."""
    if not _is_folder(home.ray_temp):
        return []
    try:
        with locked(home.services_lock, wait=False):
            if not _ray_lives(home):
                why, guard = "of a Ray that has ended", partial(_without_ray, home)
                return [_garbage(home.ray_temp, why, guard, rename=False)]
            return [*_left_by_clean(home.ray_temp), *_old_sessions(home.ray_temp)]
    except Busy:
        return []


def _old_sessions(folder: Path) -> Iterator[Garbage]:
    link = folder / "session_latest"
    if not link.is_symlink():
        return
    latest = link.readlink().name
    for path in _entries(folder):
        if path.name.startswith("session_") and path.name != latest and _is_folder(path):
            yield _garbage(path, "an earlier session of Ray")


def _left_by_clean(folder: Path) -> Iterator[Garbage]:
    for path in _entries(folder):
        if path.name.startswith(_HIDDEN) and _is_folder(path):
            yield _garbage(path, "left by a killed clean", rename=False)


# --- what is in use ----------------------------------------------------------------------------


@contextmanager
def _owning(store: Store, key: str) -> Iterator[None]:
    """Let no process begin to train the key meanwhile. Raises Busy when one has."""
    if not store.run(key).path.is_dir():  # to lock it would create it
        yield
        return
    owner = store.run(key).acquire("clean")
    if owner is None:
        raise Busy(key)
    with owner:
        yield


@contextmanager
def _dropping(lock: Path) -> Iterator[None]:
    """Hold a lock, and remove its file after what it guards. Raises Busy."""
    with locked(lock, wait=False):
        yield
        lock.unlink(missing_ok=True)


@contextmanager
def _without_ray(home: Home) -> Iterator[None]:
    """Let no Ray start meanwhile. Raises Busy when one runs."""
    with locked(home.services_lock, wait=False):
        if _ray_lives(home):
            raise Busy(str(home.ray_temp))
        yield


def _is_held(lock: Path) -> bool:
    try:
        with locked(lock, shared=True, wait=False) if lock.is_file() else nullcontext():
            return False
    except Busy:
        return True


def _ray_lives(home: Home) -> bool:
    """Tell whether a recorded process of Ray runs; True where the record cannot be read."""
    if not os.path.lexists(home.services):
        return False
    record = read_json(home.services, Record)
    if record is None:
        return True
    return any(map(alive, record.get("ray", {}).get("processes", ())))


# --- files -------------------------------------------------------------------------------------


def _garbage(
    path: Path,
    why: str,
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    rename: bool = True,
) -> Garbage:
    return Garbage(path, _bytes(path), why, guard, rename)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if _is_folder(folder) else []
    except FileNotFoundError:  # it was removed just now
        return []


def _is_key_folder(path: Path) -> bool:
    return _KEY.fullmatch(path.name) is not None and _is_folder(path)


def _is_folder(path: Path) -> bool:
    """Tell whether it is a folder itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _bytes(path: Path) -> int:
    """Return the bytes on disk of a file, or of a folder with all in it."""
    inside = [Path(top, name) for top, *kinds in os.walk(path) for kind in kinds for name in kind]
    return sum(_blocks(item) for item in (path, *inside))


def _blocks(path: Path) -> int:
    """Return the bytes that go with a file: none where it has another name, as in MLflow."""
    try:
        found = path.lstat()
        return 0 if found.st_nlink > 1 and not path.is_dir() else found.st_blocks * 512
    except FileNotFoundError:  # it was removed meanwhile
        return 0


def _age(path: Path) -> float:
    """Return the seconds since a file was written; 0 where it is gone."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
