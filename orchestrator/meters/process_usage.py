"""Read how much CPU time and memory a process and those that it has started take."""

import time

import psutil

SCAN_SECONDS = 5.0  # between two searches for processes below: one takes some ms of CPU


class ProcessUsage:
    """Reads what this process and all below it take."""

    def __init__(self, scan_seconds: float = SCAN_SECONDS) -> None:
        self._process, self._scan_seconds = psutil.Process(), scan_seconds
        self._children: list[psutil.Process] = []
        self._scanned: float | None = None

    def read(self) -> tuple[float, int]:
        """Return the CPU time so far in s, with that of processes which have ended, and the memory
        now in bytes: resident pages. Pages that two processes share count twice."""
        now = time.monotonic()
        if self._scanned is None or now - self._scanned >= self._scan_seconds:
            self._children, self._scanned = self._process.children(recursive=True), now
        times = self._process.cpu_times()
        seconds = times.user + times.system + times.children_user + times.children_system
        memory = self._process.memory_info().rss
        for child in self._children:
            try:
                with child.oneshot():
                    own = child.cpu_times()
                    resident = child.memory_info().rss
            except psutil.NoSuchProcess:
                continue  # it has ended: its time is with its parent's now
            seconds += own.user + own.system + own.children_user + own.children_system
            memory += resident
        return seconds, memory
