"""Measure what the processes of a Run take while it trains, and note it after each epoch.

A thread on each rank looks every five seconds, which takes about a thousandth of one core. After an
epoch the ranks add theirs up, and rank 0 writes the sum beside the checkpoints.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from orchestrator.meters.gpu_usage import GpuUsage
from orchestrator.meters.process_usage import ProcessUsage
from orchestrator.meters.usage_records import (
    CPU,
    GPU,
    GPU_MEMORY,
    MEMORY,
    Usage,
    read_usage,
    write_usage,
)
from orchestrator.storage.run_records import RunWriter
from trainables.engine.checkpoints import Report
from trainables.numerics.distributed import World

_PERIOD_SECONDS = 5.0
_WRITE_SECONDS = 1.0  # at least between two epochs that are written; the last one is at the end
_MB = 1e6


@contextmanager
def measured(writer: RunWriter, world: World, report: Report) -> Iterator[Report]:
    """Measure this process until the block ends. Yields what is to be called after every epoch in
    place of `report`, on every rank."""
    meter = Meter(world)
    entries = read_usage(writer.run) if world.rank == 0 else []
    written = 0.0  # when

    def note_and_report(figures: Mapping[str, float]) -> None:
        nonlocal written
        epoch = int(figures["epoch"])
        figures_of_all = total(world.all_gather(meter.end_epoch()))
        usage = {"epoch": float(epoch), "time": time.time(), **figures_of_all}
        if world.rank == 0:
            entries[:] = [entry for entry in entries if entry["epoch"] < epoch]
            entries.append(usage)
            if time.monotonic() - written > _WRITE_SECONDS:
                write_usage(writer, entries)
                written = time.monotonic()
        report(figures)

    meter.start()
    try:
        yield note_and_report
        if entries:
            write_usage(writer, entries)
    finally:
        meter.stop()


class Meter:
    """Measures what this process and those below it take: of CPU the mean of an epoch, of memory
    the most, and of the GPU the mean of what was seen."""

    def __init__(self, world: World) -> None:
        self._processes = ProcessUsage()
        self._gpu = GpuUsage(world.device) if world.device.type == "cuda" else None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="usage", daemon=True)
        self._most: dict[str, float] = {}  # since the epoch began
        self._busy: list[float] = []
        self._began, (self._seconds, _) = time.perf_counter(), self._processes.read()

    def start(self) -> None:
        """Begin to look every few seconds."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def look(self) -> float:
        """Look once. Returns the CPU time so far in s."""
        seconds, memory = self._processes.read()
        found = {MEMORY: memory / _MB}
        busy = None
        if self._gpu is not None:
            found[GPU_MEMORY], busy = self._gpu.memory() / _MB, self._gpu.busy()
        with self._lock:
            self._most = {name: max(value, self._most.get(name, 0.0)) for name, value in
                          found.items()}  # fmt: skip
            self._busy += [] if busy is None else [busy]
        return seconds

    def end_epoch(self) -> Usage:
        """Return the figures of the epoch that ends now, and begin the next one."""
        seconds, now = self.look(), time.perf_counter()
        with self._lock:
            figures = {CPU: (seconds - self._seconds) / max(now - self._began, 1e-9), **self._most}
            if self._busy:
                figures[GPU] = sum(self._busy) / len(self._busy)
            self._began, self._seconds, self._most, self._busy = now, seconds, {}, []
        return figures

    def _loop(self) -> None:
        while not self._stop.wait(_PERIOD_SECONDS):
            self.look()


def total(ranks: list[Usage]) -> Usage:
    """Return the sum over the ranks of a Run; of how busy GPUs are the mean over those known."""
    names = sorted({name for usage in ranks for name in usage})
    values = {name: [usage[name] for usage in ranks if name in usage] for name in names}
    return {name: sum(found) / (len(found) if name == GPU else 1) for name, found in values.items()}
