"""Compare what the nodes of a cluster have with what a Run takes of them: how many Runs at once."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.errors import UserError

if TYPE_CHECKING:  # workers import this file, and the study schema loads all data sets
    from orchestrator.config.study_schema import Resources

_GPU = re.compile(r"nvidia\d+")


class DoesNotFit(UserError):
    """Says that a Run asks for more than the cluster has, and what to lower. shortage: the same
    without what to lower."""

    def __init__(self, shortage: str) -> None:
        self.shortage = shortage
        lower = "lower resources.workers, cpus_per_worker or gpus_per_worker"
        super().__init__(f"{shortage}: {lower}")


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class ResourceRequest:
    """Says what a Run gets: a number of workers, and the CPUs and GPUs of each. stall_seconds: how
    long it may make no progress; None: as long as it takes."""

    workers: int
    cpus: int
    gpus: float
    stall_seconds: float | None = field(default=None, compare=False)


def request_of(resources: "Resources", nodes: Sequence[Node]) -> ResourceRequest:
    """Turn `auto` into numbers. Raises DoesNotFit when the cluster cannot place a single Run."""
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    usable = [node for node in nodes if node.gpus >= gpus and node.cpus >= 1]
    cpus = resources.cpus_per_worker
    if cpus == "auto":
        cpus = _equal_cpus(resources.workers, gpus, usable)
    request = ResourceRequest(resources.workers, cpus, gpus, 60.0 * resources.stall_minutes)
    if at_once(request, nodes) < 1:
        has = " + ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "nothing"
        raise DoesNotFit(
            f"a Run asks for {request.workers} workers with {request.cpus} CPUs and "
            f"{request.gpus:g} GPUs each; the cluster has {has}"
        )
    return request


def at_once(request: ResourceRequest, nodes: Sequence[Node]) -> int:
    """Return how many Runs with this request the nodes hold at the same time."""
    places = 0
    for node in nodes:
        fits = int(node.cpus // request.cpus)
        places += min(fits, _on_gpus(request.gpus, node.gpus)) if request.gpus else fits
    return places // request.workers


def _on_gpus(per_worker: float, gpus: float) -> int:
    """Workers that the GPUs of a node hold. A fraction of a GPU lies on one GPU."""
    if per_worker < 1:
        return int(gpus) * int(1 / per_worker + 1e-6)
    return int(gpus // per_worker)


def _equal_cpus(workers: int, gpus: float, nodes: Sequence[Node]) -> int:
    """Return the CPUs of a worker when all CPUs are shared equally: by GPU where there are any,
    else by worker."""
    if not nodes:
        return 1
    if gpus:
        return max(1, int(min(node.cpus / node.gpus * min(gpus, node.gpus) for node in nodes)))
    on_fullest = -(-workers // len(nodes))  # workers on the fullest node
    return max(1, int(min(node.cpus for node in nodes) // on_fullest))


def this_machine() -> Node:
    """Return the CPUs and NVIDIA GPUs of this machine."""
    devices = Path("/dev").iterdir() if Path("/dev").is_dir() else ()
    gpus = sum(_GPU.fullmatch(device.name) is not None for device in devices)
    return Node(float(os.cpu_count() or 1), float(gpus))
