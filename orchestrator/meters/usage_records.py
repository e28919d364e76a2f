"""The file of a Run that says what its processes took of their machines in each epoch:

<store>/<key>/usage.json    {"epochs": [{"epoch": 1, "system/cpu_cores": 1.9, ...}, ...]}

It is no part of the Run's history, so that figures and checkpoints are the same with and without.
"""

from collections.abc import Sequence
from functools import partial

from typing_extensions import TypedDict

from orchestrator.storage.files import read_json, write_json
from orchestrator.storage.run_records import RunFolder, RunWriter

_FILE = "usage.json"
CPU, MEMORY = "system/cpu_cores", "system/memory_mb"
GPU, GPU_MEMORY = "system/gpu_utilization", "system/gpu_memory_mb"
Usage = dict[str, float]  # `epoch` and the figures of that epoch


class UsageRecord(TypedDict):
    """Describes what the file holds."""

    epochs: list[dict[str, float]]


def read_usage(run: RunFolder) -> list[Usage]:
    """Return an entry for each epoch whose usage is known, ascending; empty where none is."""
    record = read_json(run.path / _FILE, UsageRecord)
    return [] if record is None else [entry for entry in record["epochs"] if "epoch" in entry]


def write_usage(writer: RunWriter, epochs: Sequence[Usage]) -> None:
    """Write what `read_usage` reads. Raises StaleWriter where a newer attempt has begun."""
    writer.put_optional(_FILE, partial(write_json, value={"epochs": list(epochs)}))
