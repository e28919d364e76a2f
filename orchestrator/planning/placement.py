"""Compare what the nodes of a cluster have with what a Run takes of them: how many Runs at once."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.errors import UserError
from orchestrator.needs.labels import matches
from orchestrator.needs.nodes import KIND_OF_GPU, Node

if TYPE_CHECKING:  # workers import this file, and need no schema
    from orchestrator.needs.resources import Resources

_GPU = re.compile(r"nvidia\d+")
_SMALL = 1e-6  # what sums of parts of GPUs and of other resources may be off


class DoesNotFit(UserError):
    """Says that a Run asks for more than the cluster has, and what to lower. shortage: the same
    without what to lower."""

    def __init__(self, shortage: str, lower: str) -> None:
        self.shortage = shortage
        super().__init__(f"{shortage}: {lower}")


@dataclass(frozen=True)
class ResourceRequest:
    """Says what a Run gets: a number of workers, and what each has. memory: bytes; custom: amounts
    of further resources, a kind of GPU among them, by Ray's names; labels: selectors of the nodes
    that may be used. stall_seconds: how long it may make no progress; None: as long as it takes."""

    workers: int
    cpus: int
    gpus: float
    stall_seconds: float | None = field(default=None, compare=False)
    memory: float = 0.0
    custom: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def of_a_worker(self) -> dict[str, float]:
        """Return the amounts of one worker, by Ray's names."""
        amounts = {"CPU": float(self.cpus), "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in amounts.items() if amount} | dict(self.custom)

    def selectors(self) -> list[dict[str, str]] | None:
        """Return the label selectors of each worker; None where any node will do."""
        return [dict(self.labels)] * self.workers if self.labels else None


def request_of(resources: "Resources", nodes: Sequence[Node]) -> ResourceRequest:
    """Turn `auto` into numbers. Raises DoesNotFit when the cluster cannot place a single Run."""
    able = [node for node in nodes if _may_be_used(resources, node)]
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if resources.gpu or any(node.gpus >= 1 for node in able) else 0.0
    usable = [node for node in able if node.gpus >= gpus and node.cpus >= 1]
    cpus = resources.cpus_per_worker
    if cpus == "auto":
        cpus = _equal_cpus(resources.workers, gpus, usable)
    request = _request(resources, cpus, gpus)
    if at_once(request, nodes) < 1:
        has = " + ".join(_has(node, request) for node in nodes) or "nothing"
        raise DoesNotFit(
            f"a Run asks for {_asks(request)}; the cluster has {has}", _advice(request)
        )
    return request


def sizes_of(resources: "Resources", nodes: Sequence[Node]) -> list[ResourceRequest]:
    """Return what a Run may get, the most first: where `auto` shares out the CPUs of GPUs and nodes
    have different numbers of them, a Run gets those of the node that it lies on. Raises DoesNotFit
    as `request_of`, whose request is the last one."""
    least = request_of(resources, nodes)
    if resources.cpus_per_worker != "auto" or not least.gpus:
        return [least]
    able = [node for node in nodes if _may_be_used(resources, node) and node.gpus >= least.gpus]
    shares = {_equal_cpus(1, least.gpus, [node]) for node in able if node.cpus >= 1}
    larger = [replace(least, cpus=cpus) for cpus in sorted(shares, reverse=True)]
    return [item for item in larger if item.cpus > least.cpus and at_once(item, nodes)] + [least]


def least_of(resources: "Resources") -> ResourceRequest:
    """Return what a Run needs at least, where `auto` would take what nodes have."""
    cpus, gpus = resources.cpus_per_worker, resources.gpus_per_worker
    least = (1.0 if resources.gpu else 0.0) if gpus == "auto" else gpus
    return _request(resources, 1 if cpus == "auto" else cpus, least)


def _request(resources: "Resources", cpus: int, gpus: float) -> ResourceRequest:
    return ResourceRequest(
        resources.workers,
        cpus,
        gpus,
        60.0 * resources.stall_minutes,
        resources.memory,
        tuple(sorted(resources.amounts().items())),
        tuple(sorted(resources.selectors().items())),
    )


def _may_be_used(resources: "Resources", node: Node) -> bool:
    fits = matches(resources.selectors(), dict(node.labels)) and node.memory >= resources.memory
    return fits and node.has(resources.amounts().items())


def _asks(request: ResourceRequest) -> str:
    parts = [f"{request.cpus} CPUs", f"{request.gpus:g} GPUs{_kind(request.custom)}"]
    parts += [f"{request.memory / 1e9:g} GB of memory"] if request.memory else []
    parts += [f"{amount:g} {name}" for name, amount in _named(request.custom)]
    where = ", ".join(f"{name}={value}" for name, value in request.labels)
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{request.workers} workers with {listed} each{f' on nodes with {where}' * bool(where)}"


def _has(node: Node, request: ResourceRequest) -> str:
    """Return what a node has, and of further things those that a Run asks for."""
    kind = _kind(node.custom) if _kind(request.custom) else ""
    parts = [f"{node.cpus:g} CPUs", f"{node.gpus:g} GPUs{kind}"]
    if request.memory and math.isfinite(node.memory):
        parts.append(f"{node.memory / 1e9:.1f} GB of memory")
    own, labels = dict(node.custom), dict(node.labels)
    parts += [f"{own.get(name, 0.0):g} {name}" for name, _ in _named(request.custom)]
    parts += [f"{name}={labels.get(name, '')}" for name, _ in request.labels]
    return ", ".join(parts)


def _kind(custom: Sequence[tuple[str, float]]) -> str:
    kinds = [name.removeprefix(KIND_OF_GPU) for name, _ in custom if name.startswith(KIND_OF_GPU)]
    return f" ({', '.join(kinds)})" if kinds else ""


def _named(custom: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name, amount) for name, amount in custom if not name.startswith(KIND_OF_GPU)]


def _advice(request: ResourceRequest) -> str:
    asked = {
        "gpu": _kind(request.custom),
        "memory_gb": request.memory,
        "custom": _named(request.custom),
        "labels": request.labels,
    }
    more = [name for name, value in asked.items() if value]
    names = ["workers", "cpus_per_worker", "gpus_per_worker"]
    advice = f"lower resources.{', '.join(names[:-1])} or {names[-1]}"
    return f"{advice}, or change {', '.join(more)}" if more else advice


def at_once(request: ResourceRequest, nodes: Sequence[Node]) -> int:
    """Return how many Runs with this request the nodes hold at the same time."""
    return sum(_places(request, node) for node in nodes) // request.workers


def _places(request: ResourceRequest, node: Node) -> int:
    """Return how many workers a node holds."""
    if not matches(dict(request.labels), dict(node.labels)):
        return 0
    places = int(node.cpus // request.cpus)
    if request.gpus:
        places = min(places, _on_gpus(request.gpus, node.gpus))
    if request.memory and math.isfinite(node.memory):
        places = min(places, int(node.memory // request.memory))
    own = dict(node.custom)
    for name, amount in request.custom:
        places = min(places, int(own.get(name, 0.0) / amount + _SMALL))
    return places


def holds_workers(request: ResourceRequest, node: Node) -> bool:
    """Return whether a node holds a worker."""
    return _places(request, node) > 0


def left_beside(
    request: ResourceRequest, nodes: Sequence[Node], runs: int = 1
) -> list[Node] | None:
    """Return what nodes have left beside Runs with this request; None where they have no place.
    Workers are put on the smallest nodes that hold them, and on those without GPUs before others
    where they need none. With requests of several kinds it may say None where Ray finds a place."""
    left, missing = list(nodes), runs * request.workers
    spared = [(not request.gpus and node.gpus > 0, node.cpus) for node in nodes]
    for index in sorted(range(len(left)), key=spared.__getitem__):
        node = left[index]
        count = min(missing, _places(request, node))
        missing -= count
        left[index] = _without(node, request, count) if count else node
    return None if missing else left


def _without(node: Node, request: ResourceRequest, count: int) -> Node:
    gpus = request.gpus
    if 0 < gpus < 1:  # as many as fit share a GPU equally
        gpus = 1 / int(1 / gpus + _SMALL)
    taken = dict(request.custom)
    custom = tuple((name, amount - count * taken.get(name, 0.0)) for name, amount in node.custom)
    return replace(
        node,
        cpus=node.cpus - count * request.cpus,
        gpus=node.gpus - count * gpus,
        memory=node.memory - count * request.memory,
        custom=custom,
    )


def _on_gpus(per_worker: float, gpus: float) -> int:
    """Workers that the GPUs of a node hold. A fraction of a GPU lies on one GPU."""
    if per_worker < 1:
        on_each = int(1 / per_worker + _SMALL)
        whole = math.floor(gpus + _SMALL)
        return whole * on_each + int((gpus - whole) / per_worker + _SMALL)
    return int((gpus + _SMALL) // per_worker)


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
