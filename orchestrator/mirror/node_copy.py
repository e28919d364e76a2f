"""Lets a worker train on its own node's disk: what it starts from is fetched from the store, and
what it writes is sent from threads of their own while it trains."""

import logging
import platform
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.mirror.images import fetch_images
from orchestrator.mirror.live import Live
from orchestrator.mirror.run_copy import RunCopy
from orchestrator.objects.address import open_objects
from orchestrator.objects.contract import Objects, ObjectsError
from orchestrator.objects.head import read_head
from orchestrator.objects.patience import patiently
from orchestrator.storage.checkpoints import epochs_in, folder_of
from orchestrator.storage.manifest import NOTE, PRODUCED, read_manifest
from orchestrator.storage.run_records import RunFolder, StaleWriter

log = logging.getLogger(__name__)
_LIVE_SECONDS = 2.0  # between two looks at what is new


class NodeCopy:
    """Keeps the copy of one attempt in the process of one rank.

    Rank 0 sends; other ranks fetch what they need, and send their logs. Use it as a context, which
    ends when all is sent.
    """

    def __init__(self, objects: Objects, run: RunFolder, attempt: int, rank: int) -> None:
        """Make the attempt known to this disk. Raises StaleWriter and ObjectsError."""
        self._copy, self._live = RunCopy(objects, run), Live(objects, run, attempt)
        self._run, self._attempt, self._rank = run, attempt, rank
        _begin(objects, run, attempt)
        self._epochs = 0  # that the store has
        self._fetched = False  # before that the folder may lack what the store has
        self._sent: object = None  # what of the checkpoints was sent last
        self._stale: StaleWriter | None = None
        self._over, self._sending = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=loop, args=(work,), daemon=True)
                         for loop, work in self._work()]  # fmt: skip

    def _work(self) -> list[tuple[Callable[[Callable[[], None]], None], Callable[[], None]]]:
        works = [self._talk, self._send] if self._rank == 0 else [self._talk]
        return [(self._loop, work) for work in works]

    def __enter__(self) -> None:
        """Get what the store has, and begin to send."""
        self.fetch()
        self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send the rest."""
        self.stop(whole=kind is None)

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def fetch(self) -> None:
        """Get what the store has of the Run onto this disk. Raises ObjectsError."""
        patiently(self._copy.fetch)
        self._fetched = True

    def check(self) -> None:
        """Raise StaleWriter where a newer attempt has taken over."""
        if self._stale is not None:
            raise self._stale

    def send_now(self) -> None:
        """Return when the store has what the folder has. Raises StaleWriter, and ObjectsError where
        the store stays away."""
        with self._sending:
            patiently(self._commit)

    def stop(self, whole: bool) -> None:
        """End the threads. whole: send all that the folder has first, for the Run has ended well;
        raises as `send_now` then. Otherwise only what it said last is sent."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if whole and self._rank == 0:
            self.send_now()
            self._copy.tidy(self._attempt)
        try:
            if not whole:  # its figures say why
                self._epochs = max(epochs_in(self._run.path), default=0)
            self._talk()
        except ObjectsError as error:
            log.warning("what the Run said last is not in the store: %s", error)

    def _loop(self, work: Callable[[], None]) -> None:
        """Do a thread's work every few seconds until the end. What could not be sent is sent later;
        training waits for none of it."""
        told = ""
        while not self._over.wait(_LIVE_SECONDS):
            try:
                work()
                told = ""
            except StaleWriter as error:
                self._stale = error
                return
            except (ObjectsError, OSError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s: training goes on, and it is sent later", told)

    def _talk(self) -> None:
        if self._rank == 0:
            self._live.send_progress(self._epochs)
        else:
            self._live.fetch_progress()
        self._live.send_log(self._rank)

    def _send(self) -> None:
        with self._sending:
            if self._fetched and self._checkpoints() != self._sent:
                self._commit()

    def _commit(self) -> None:
        if not self._fetched:
            raise RuntimeError("a folder that was not fetched is not sent: it would replace more")
        sent = self._checkpoints()
        self._epochs = self._copy.commit(self._attempt)
        self._sent = sent

    def _checkpoints(self) -> Mapping[int, object]:
        """Return what changes with every checkpoint, and every image of a producer."""
        root = self._run.path
        manifests = {epoch: read_manifest(folder_of(root, epoch)) for epoch in epochs_in(root)}
        produced = sum(1 for _ in (root / PRODUCED).glob(f"*{NOTE}"))
        files = {epoch: manifest and manifest["files"] for epoch, manifest in manifests.items()}
        return {**files, 0: produced}


def _begin(objects: Objects, run: RunFolder, attempt: int) -> None:
    try:
        run.begin_attempt(attempt)
    except StaleWriter as error:
        if read_head(objects, run.key).attempt != attempt:
            raise
        raise ObjectsError(
            f"the store {objects.address} was emptied: it is at attempt {attempt}, and the disk of "
            f"{platform.node()} is further: remove {run.path} there"
        ) from error


def open_copy(address: str, run: RunFolder, attempt: int, rank: int) -> NodeCopy | None:
    """Return the copy of an attempt; None where no address is given: the disk is the store."""
    return NodeCopy(open_objects(address), run, attempt, rank) if address else None


def fetch_run(address: str, run: RunFolder) -> None:
    """Get what a store has of a Run onto this disk, where an address is given. Raises
    ObjectsError."""
    if address:
        patiently(RunCopy(open_objects(address), run).fetch)


def fetch_table(address: str, table: Path) -> None:
    """Get the images of a Run onto this disk, where the address of a store is given. Raises
    ObjectsError."""
    if address:
        objects = open_objects(address)
        patiently(lambda: fetch_images(objects, table))
