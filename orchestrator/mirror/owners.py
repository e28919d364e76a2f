"""Own the keys of Runs on behalf of a driver: by the kernel's lock in its home, and where the home
has a store, by a lease there too. Beside that, what the store has comes into the home."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from orchestrator.mirror.images import send_images
from orchestrator.mirror.live import Live
from orchestrator.mirror.run_copy import RunCopy
from orchestrator.objects.address import open_objects
from orchestrator.objects.contract import Objects, ObjectsError
from orchestrator.objects.head import read_head
from orchestrator.objects.lease import RENEW_SECONDS, Claims, Lease, LeaseLost
from orchestrator.objects.patience import patiently
from orchestrator.storage.run_log import TOLD
from orchestrator.storage.run_records import DONE, RunFolder, StaleWriter, Store

log = logging.getLogger("orchestrator")
_LOOK_SECONDS = 3.0  # between two looks at what running attempts say
_ASK_SECONDS = 5.0  # between two looks at the same owner
_AT_ONCE = 8  # keys that are asked for


class OwnedKey:
    """Holds a key that this driver alone may train. Use it as a context; it is free afterwards."""

    def __init__(self, run: RunFolder, lock: IO[str], lease: Lease | None, copy: "Copies | None"):
        self._run, self._lock, self._lease, self._copies = run, lock, lease, copy
        self.attempt = 0  # the running one; 0 while there is none

    @property
    def key(self) -> str:
        return self._run.key

    def __enter__(self) -> "OwnedKey":
        return self

    def __exit__(self, *_: object) -> None:
        if self._copies is not None and self._lease is not None:
            self._copies.give_back(self, self._lease)
        self._lock.close()

    def begin_attempt(self) -> int:
        """Begin the next attempt, which refuses all older ones. Returns its number. Raises
        StaleWriter where another home has taken over, ObjectsError where the store is away."""
        begun = None
        if self._lease is not None:
            try:
                lease, least = self._lease, self._run.attempt() + 1
                begun = patiently(lambda: lease.begin_attempt(least))
            except LeaseLost as error:
                raise StaleWriter(f"another home has taken over {self._run.key}") from error
        self.attempt = self._run.begin_attempt(begun)
        return self.attempt

    def collect(self) -> None:
        """Get what an attempt that has ended has left in the store into the home."""
        if self._copies is not None:
            self._copies.collect(self._run, self.attempt)
        self.attempt = 0


class Owners:
    """Gives keys of Runs to one driver."""

    def __init__(self, store: Store, address: str = "", home: str = "") -> None:
        """address: of the store beyond this machine, empty: there is none; home: its name."""
        self.address, self._store = address, store
        self.copies = Copies(store, open_objects(address), home) if address else None

    def acquire(self, key: str, words: str) -> OwnedKey | None:
        """Become the only one to train a Run; None while another one is it. words: for those who
        wait. Raises OSError where the home, ObjectsError where the store does not answer."""
        run = self._store.run(key)
        lock = run.acquire(words)
        if lock is None:
            return None
        if self.copies is None:
            return OwnedKey(run, lock, None, None)
        try:
            owned = self.copies.claim(run, lock, words)
        except BaseException:
            lock.close()
            raise
        if owned is None:
            lock.close()
        return owned

    def owner(self, key: str) -> str | None:
        """Return who trains a Run, in a few words; None where it is not known."""
        there = None if self.copies is None else self.copies.others.get(key)
        return self._store.run(key).owner() or there

    def fetch(self, keys: Iterable[str]) -> bool:
        """Get what the store has of Runs into the home, and send what it lacks of finished ones.
        Returns whether anything came. Raises ObjectsError."""
        return self.copies is not None and self.copies.fetch(keys)

    def send_images(self, tables: Iterable[Path]) -> None:
        """Put decoded images into the store, for nodes that do not see this disk."""
        if self.copies is not None:
            for table in tables:
                send_images(self.copies.objects, table)


class Copies:
    """Fetches what the store has of the Runs of one driver, renews their leases, and brings what
    running attempts say into the home."""

    def __init__(self, store: Store, objects: Objects, home: str) -> None:
        self.objects, self._store = objects, store
        self._home, self._claims = home, Claims(objects, home)
        self._held: dict[str, tuple[OwnedKey, Lease]] = {}
        self._asked: dict[str, float] = {}
        self.others: dict[str, str] = {}  # key → who else trains it, as last seen
        self._started = threading.Lock()
        self._threads: list[threading.Thread] = []

    def claim(self, run: RunFolder, lock: IO[str], words: str) -> OwnedKey | None:
        """Own a key in the store too. lock: of the home, which this process holds."""
        now = time.monotonic()
        if now - self._asked.get(run.key, -_ASK_SECONDS) < _ASK_SECONDS:
            return None
        lease = self._claims.claim(run.key, words)
        if lease is None:
            self._asked[run.key] = now
            self.others[run.key] = self._claims.owner(run.key) or "another home"
            return None
        RunCopy(self.objects, run).fetch()
        owned = OwnedKey(run, lock, lease, self)
        self._held[run.key] = owned, lease
        self._start()
        return owned

    def give_back(self, owned: OwnedKey, lease: Lease) -> None:
        """End a lease. Nothing is lost where the store does not answer: it expires."""
        self._held.pop(owned.key, None)
        try:
            lease.release()
        except (LeaseLost, ObjectsError) as error:
            log.info("%s is not given back: %s", owned.key, error)

    def collect(self, run: RunFolder, attempt: int) -> None:
        """Get what an attempt has left into the home. A store that is away has it later."""
        try:
            live = Live(self.objects, run, attempt)
            patiently(live.fetch_progress)
            live.fetch_logs()
            RunCopy(self.objects, run).fetch()
        except ObjectsError as error:
            log.warning("%s", error, extra=TOLD)

    def fetch(self, keys: Iterable[str]) -> bool:
        """Do what `Owners.fetch` does."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return any(list(pool.map(self._fetch, dict.fromkeys(keys))))

    def _fetch(self, key: str) -> bool:
        run = self._store.run(key)
        if run.result() is not None and DONE not in read_head(self.objects, key).files:
            self._send(run)  # it was finished before the home had a store
            return False
        return RunCopy(self.objects, run).fetch()

    def _send(self, run: RunFolder) -> None:
        lock = run.acquire("sending it to the store")
        if lock is None:
            return
        with lock:
            lease = self._claims.claim(run.key, "sending it to the store")
            if lease is not None:
                RunCopy(self.objects, run).commit(lease.begin_attempt())
                lease.release()

    def _start(self) -> None:
        """Begin to renew leases and to listen, once."""
        with self._started:
            if self._threads:
                return
            for work, seconds in ((self._renew, RENEW_SECONDS), (self._listen, _LOOK_SECONDS)):
                thread = threading.Thread(target=_again, args=(work, seconds), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _renew(self) -> None:
        for key, (_, lease) in list(self._held.items()):
            try:
                lease.renew()
            except LeaseLost:
                log.warning("another home has taken over %s", key)
                self._held.pop(key, None)
            except ObjectsError as error:
                log.warning("%s", error)

    def _listen(self) -> None:
        for key, (owned, _) in list(self._held.items()):
            if owned.attempt:
                live = Live(self.objects, self._store.run(key), owned.attempt)
                try:
                    live.fetch_progress()
                    live.fetch_logs()
                except ObjectsError as error:
                    log.info("%s", error)


def _again(work: Callable[[], None], seconds: float) -> None:
    """Do something every so many seconds, as long as this process lives."""
    while True:
        time.sleep(seconds)
        try:
            work()
        except Exception:  # the next time may be better; leases must be renewed
            log.exception("the store of the Runs")
