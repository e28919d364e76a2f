"""Measuring in turns: what is compared runs one after the other, again and again, since a
machine's speed drifts; a ratio is the median of the ratios within a turn."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

Work = Callable[[], float | None]
_PACKAGES = ("torch", "torchvision", "ray", "mlflow")


class Line(NamedTuple):
    """One line of the table. goal: what `figure` must reach, in words; "" where there is none."""

    what: str
    figure: str
    goal: str
    n: int


def seconds(works: Mapping[str, Work], turns: int, times: int = 1) -> dict[str, list[float]]:
    """Seconds that each took in every turn, done so many `times`, after a first turn that warms up.
    A work that returns a number has measured itself."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            started = time.perf_counter()
            for _ in range(times):
                said = work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken = time.perf_counter() - started if said is None else said
            if turn:
                found[name].append(taken)
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of the ratios within a turn."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def shown(values: Sequence[float], unit: str = "s") -> str:
    """Median and extremes."""
    middle = statistics.median(values)
    return f"{middle:.3g} {unit} ({min(values):.3g} to {max(values):.3g})"


def machine() -> str:
    """Processor, threads and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        name = next((ln.partition(": ")[2] for ln in lines if ln.startswith("model name")), name)
    versions = ", ".join(f"{each} {importlib.metadata.version(each)}" for each in _PACKAGES)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{name}, {os.cpu_count()} CPUs, {device}; Python {platform.python_version()}, {versions}"
    )


def table(lines: Sequence[Line]) -> str:
    """As Markdown."""
    rows = ["| what | figure | goal | n |", "|---|---|---|---|"]
    return "\n".join(rows + [f"| {line.what} | {line.figure} | {line.goal} | {line.n} |"
                             for line in lines])  # fmt: skip
