"""What a cluster has, what a Run takes of it, and how many Runs fit at once. Plain arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.faults import UserError

if TYPE_CHECKING:  # every worker imports this, and a study's form needs all data sets
    from orchestrator.study_file import Resources


class DoesNotFit(UserError):
    """A Run asks for more than the cluster has; one line with both."""


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Share:
    """What a Run gets: so many workers, each with so much."""

    workers: int
    cpus: int
    gpus: float


def share_of(resources: "Resources", nodes: Sequence[Node]) -> Share:
    """Turn `auto` into numbers. Raises DoesNotFit when not even one Run can be placed."""
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    usable = [node for node in nodes if node.gpus >= gpus and node.cpus >= 1]
    cpus = resources.cpus_per_worker
    if cpus == "auto":
        cpus = _equal_part(resources.workers, gpus, usable)
    share = Share(resources.workers, cpus, gpus)
    if at_once(share, nodes) < 1:
        has = " + ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "nothing"
        raise DoesNotFit(
            f"a Run asks for {share.workers} workers with {share.cpus} CPUs and {share.gpus:g} "
            f"GPUs each; the cluster has {has}: lower resources.workers, cpus_per_worker or "
            "gpus_per_worker"
        )
    return share


def at_once(share: Share, nodes: Sequence[Node]) -> int:
    """How many Runs of this share the cluster can hold."""
    places = 0
    for node in nodes:
        fits = int(node.cpus // share.cpus)
        places += min(fits, _on_gpus(share.gpus, node.gpus)) if share.gpus else fits
    return places // share.workers


def _on_gpus(each: float, gpus: float) -> int:
    """Workers that the GPUs of a node hold: one worker's fraction lies on one GPU."""
    if each < 1:
        return int(gpus) * int(1 / each + 1e-6)
    return int(gpus // each)


def _equal_part(workers: int, gpus: float, nodes: Sequence[Node]) -> int:
    """All CPUs, shared equally: by GPU where there are any, else by worker."""
    if not nodes:
        return 1
    if gpus:
        return max(1, int(min(node.cpus / node.gpus * min(gpus, node.gpus) for node in nodes)))
    each = -(-workers // len(nodes))  # workers on the fullest node
    return max(1, int(min(node.cpus for node in nodes) // each))
