"""Reads and writes the file of a Run that says what its processes took in each epoch:

<store>/<key>/usage.json    {"epochs": [{"epoch": 1, "time": ..., "system/cpu_cores": 1.9}, ...]}

It is no part of the Run's history, so that figures and checkpoints are the same with and without.
"""

import json
import time
from collections.abc import Sequence

from typing_extensions import TypedDict

from orchestrator.storage.files import read_json
from orchestrator.storage.run_records import RunFolder, RunWriter

_FILE = "usage.json"
CPU, MEMORY = "system/cpu_cores", "system/memory_mb"
GPU, GPU_MEMORY = "system/gpu_utilization", "system/gpu_memory_mb"
# `epoch`, `time` (its end, in s since 1970) and the figures of that epoch
Usage = dict[str, float]


class UsageRecord(TypedDict):
    """Describes what the file holds."""

    epochs: list[dict[str, float]]


def read_usage(run: RunFolder) -> list[Usage]:
    """Return an entry for each epoch whose usage is known, ascending; empty where none is."""
    record = read_json(run.path / _FILE, UsageRecord)
    return [] if record is None else [entry for entry in record["epochs"] if "epoch" in entry]


def new_usage(run: RunFolder, after: int, last: int, stamps: dict[int, int]) -> list[Usage]:
    """Return the entries, without their time, of the epochs after `after`, up to `last`. An entry
    is written a moment after its epoch. stamps: epoch → its end in ms, filled where it is new."""
    entries = read_usage(run) if after < last else []
    found = [entry for entry in entries if after < entry["epoch"] <= last]
    for entry in found:
        ended = entry.pop("time", time.time())
        stamps.setdefault(int(entry["epoch"]), int(1000 * ended))
    return found


def write_usage(writer: RunWriter, epochs: Sequence[Usage]) -> None:
    """Write what `read_usage` reads. Raises StaleWriter where a newer attempt has begun."""
    text = json.dumps({"epochs": list(epochs)})
    writer.put_optional(_FILE, lambda path: path.write_text(text, encoding="utf-8"))
