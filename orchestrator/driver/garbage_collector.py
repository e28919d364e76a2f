"""Find and remove what no study's newest plan needs: checkpoints, caches, temporary folders.

Nothing goes on a guess: a plan that cannot be read stops all of it, names that nobody here gives
stay, and so does what somebody holds. Symbolic links are never followed: a store or a cache that is
one lies elsewhere, and is left alone.
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
from orchestrator.execution.processes import alive
from orchestrator.planning.plan import UnknownPlan, from_plain
from orchestrator.planning.run import Run
from orchestrator.storage.files import Busy, locked, read_json
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trials

log = logging.getLogger(__name__)
_KEY = re.compile(r"[0-9a-f]{20}")  # as a plan makes them; the store alone would take any word
_ATTEMPT = re.compile(r"([0-9a-f]{20})-\d+")
_CACHE = re.compile(r"([0-9a-f]{16})(\.tmp|\.lock)?")
_WRITING = re.compile(r"\.(epoch|spare)_\d+\.\d+")
_NOTE = re.compile(r"\.(progress|attempt|(done|ended|origin|manifest|progress)\.json)\.\w+")
_NOTE_SECONDS = 600.0  # a note is written in less; its writer need not own the key
_HIDDEN = ".clean-"


@dataclass(frozen=True)
class Garbage:
    """A folder or a file that can go."""

    path: Path
    bytes: int  # on disk, the whole folder
    why: str
    # held while it is removed; raises Busy when somebody has come to need it
    guard: Callable[[], AbstractContextManager[None]] = field(
        default=nullcontext, repr=False, compare=False
    )
    rename: bool = field(default=True, repr=False, compare=False)  # half would look whole


def clean(home: Home, dry_run: bool) -> list[Garbage]:
    """Remove what no newest plan needs. Returns what was removed, or would be with `dry_run`.

    Raises Refused while a plan is made, or when one cannot be read; nothing is removed then.
    """
    try:
        with locked(home.planning, wait=False):
            found = find_waste(home)
            if dry_run:
                return found
            remove(found)
            return [item for item in found if not os.path.lexists(item.path)]
    except Busy as error:
        raise Refused("a submit is under way, or another clean: try again later", 1) from error


def find_waste(home: Home) -> list[Garbage]:
    """What no newest plan needs and nobody uses now. Raises Refused when a plan cannot be read."""
    runs, store = _newest_runs(home), Store(home.store)
    keys = {path.name for path in _entries(home.store) if _is_key_folder(path)}
    owned = {key for key in keys if store.run(key).owner() is not None}
    needed = {key for run in runs for key in (run.key, run.parent) if key is not None}
    needed |= _needed_by_searches(home, store)
    data = {run.dataset for run in runs}
    parts = (
        _in_store(store, keys - owned, needed),
        # a training that no newest plan has may read any cache
        _in_cache(home.cache, data, spare_others=bool(owned - needed)),
        _in_ray_train(home.ray_train, store),
        _in_ray_temp(home),
    )
    return [item for part in parts for item in part]


def remove(waste: Iterable[Garbage]) -> int:
    """Remove each of them, unless somebody holds it by now. Returns the bytes freed."""
    freed = 0
    for item in waste:
        try:
            with item.guard():
                _delete(item.path, item.rename)
            freed += item.bytes
        except Busy:
            log.info("%s stays: it is in use", item.path)
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
    """The Runs of every study's newest plan."""
    try:
        paths = sorted(path for path in home.plans.iterdir() if path.suffix == ".json")
    except OSError as error:
        raise Refused(f"nothing is removed: {home.plans}: {error.strerror}", 1) from error
    return [run for path in paths for run in _runs(path)]


def _needed_by_searches(home: Home, store: Store) -> set[str]:
    """Keys of the newest plans' searches, and of the trials of those that have not found yet."""
    needed = set()
    for path in home.plans.glob("*.json"):
        plan = read_json(path) or {}
        for search in plan.get("searches", ()):
            if (key := search.get("key")) is not None:
                trials = Trials(store.run(key).path)
                found = trials.have_found(search["count"])
                tried = () if found else trials.all()
                needed |= {key, *(one for trial in tried for one in (trial.key, *trial.ahead))}
    return needed


def _runs(path: Path) -> tuple[Run, ...]:
    try:
        return from_plain(read_json(path) or {})
    except (UnknownPlan, KeyError, TypeError) as error:
        raise Refused(
            f"nothing is removed: {path} is damaged or another version's: "
            f"submit the study {path.stem} again, or delete the file",
            1,
        ) from error


# --- where waste lies --------------------------------------------------------------------------


def _in_store(store: Store, keys: Iterable[str], needed: Set[str]) -> Iterator[Garbage]:
    """keys: those in the store that nobody owns."""
    yield from _left_by_clean(store.root)
    for key in sorted(keys):
        folder, guard = store.run(key).path, partial(_owning, store, key)
        if key not in needed:
            yield _waste(folder, "checkpoints of a Run that no newest plan has", guard)
            continue
        yield from _left_by_clean(folder)
        for path in _half_written(folder):
            yield _waste(path, "left by a killed writer", guard)


def _half_written(folder: Path) -> Iterator[Path]:
    """What writers of a key who did not get to the end have left in its folder."""
    entries = _entries(folder)
    yield from (path for path in entries if _WRITING.fullmatch(path.name) and _is_folder(path))
    places = [folder, *(path for path in entries if path.name.startswith(("epoch_", "spare_")))]
    for path in (path for place in places for path in _entries(place)):
        if _NOTE.fullmatch(path.name) and _age(path) > _NOTE_SECONDS:
            yield path


def _in_cache(folder: Path, needed: Set[str], spare_others: bool) -> Iterator[Garbage]:
    """spare_others: keep what no newest plan uses, too, where it is whole."""
    yield from _left_by_clean(folder)
    names = [match[1] for path in _entries(folder) if (match := _CACHE.fullmatch(path.name))]
    for name in sorted(set(names)):
        final, building, lock = (folder / f"{name}{end}" for end in ("", ".tmp", ".lock"))
        if _is_held(lock):
            continue
        keep = name in needed or spare_others
        guard = partial(locked, lock, wait=False) if keep else partial(_dropping, lock)
        if _is_folder(building):
            yield _waste(building, "left by a killed builder", guard)
        if keep:
            continue
        if _is_folder(final):
            yield _waste(final, "cache of a data set that no newest plan uses", guard)
        elif lock.is_file() and not any(map(os.path.lexists, (final, building))):
            yield _waste(lock, "lock of a cache that is gone", guard)


def _in_ray_train(folder: Path, store: Store) -> Iterator[Garbage]:
    yield from _left_by_clean(folder)
    for path in _entries(folder):
        match = _ATTEMPT.fullmatch(path.name)
        if match and _is_folder(path) and store.run(match[1]).owner() is None:
            guard = partial(_owning, store, match[1])
            yield _waste(path, "Ray Train's notes on an attempt that has ended", guard)


def _in_ray_temp(home: Home) -> list[Garbage]:
    """Nothing while Ray starts or stops: its new session is not yet the latest one then."""
    if not _is_folder(home.ray_temp):
        return []
    try:
        with locked(home.services_lock, wait=False):
            if not _ray_lives(home):
                why, guard = "of a Ray that has ended", partial(_without_ray, home)
                return [_waste(home.ray_temp, why, guard, rename=False)]
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
            yield _waste(path, "an earlier session of Ray")


def _left_by_clean(folder: Path) -> Iterator[Garbage]:
    for path in _entries(folder):
        if path.name.startswith(_HIDDEN) and _is_folder(path):
            yield _waste(path, "left by a killed clean", rename=False)


# --- who holds what ----------------------------------------------------------------------------


@contextmanager
def _owning(store: Store, key: str) -> Iterator[None]:
    """Nobody begins to train the key meanwhile. Raises Busy when somebody has."""
    if not store.run(key).path.is_dir():  # owning would make it
        yield
        return
    owner = store.run(key).acquire("clean")
    if owner is None:
        raise Busy(key)
    with owner:
        yield


@contextmanager
def _dropping(lock: Path) -> Iterator[None]:
    """Hold a lock, and remove its file with what it guards. Raises Busy."""
    with locked(lock, wait=False):
        yield
        lock.unlink(missing_ok=True)


@contextmanager
def _without_ray(home: Home) -> Iterator[None]:
    """No Ray starts meanwhile. Raises Busy when one runs."""
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
    """Whether a recorded process of Ray runs, or that cannot be told."""
    if not os.path.lexists(home.services):
        return False
    record = read_json(home.services)
    if record is None:
        return True
    return any(map(alive, record.get("ray", {}).get("processes", ())))


# --- files -------------------------------------------------------------------------------------


def _waste(
    path: Path,
    why: str,
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    rename: bool = True,
) -> Garbage:
    return Garbage(path, _bytes(path), why, guard, rename)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir()) if _is_folder(folder) else []
    except FileNotFoundError:  # somebody removed it just now
        return []


def _is_key_folder(path: Path) -> bool:
    return _KEY.fullmatch(path.name) is not None and _is_folder(path)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _bytes(path: Path) -> int:
    """What a file, or a folder with all in it, takes on the disk."""
    inside = [Path(top, name) for top, *kinds in os.walk(path) for kind in kinds for name in kind]
    return sum(_blocks(item) for item in (path, *inside))


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:  # somebody else removed it meanwhile
        return 0


def _age(path: Path) -> float:
    """Seconds since a file was written; none where it is gone."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
