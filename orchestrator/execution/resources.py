"""What a cluster has, what a Run takes of it, and waiting until there is room."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ray
import ray.train
import ray.train.torch
from ray._private.state import available_resources_per_node
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.state import list_actors, list_jobs, list_placement_groups
from ray.util.state.exception import RayStateApiException

from orchestrator.config.errors import UserError
from orchestrator.execution.failures import one_line

if TYPE_CHECKING:  # every worker imports this, and a study's form needs all data sets
    from orchestrator.config.study_schema import Resources

log = logging.getLogger("orchestrator")


class DoesNotFit(UserError):
    """A Run asks for more than the cluster has; one line with both."""


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class ResourceRequest:
    """What a Run gets: so many workers, each with so much."""

    workers: int
    cpus: int
    gpus: float


def share_of(resources: "Resources", nodes: Sequence[Node]) -> ResourceRequest:
    """Turn `auto` into numbers. Raises DoesNotFit when not even one Run can be placed."""
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    usable = [node for node in nodes if node.gpus >= gpus and node.cpus >= 1]
    cpus = resources.cpus_per_worker
    if cpus == "auto":
        cpus = _equal_part(resources.workers, gpus, usable)
    share = ResourceRequest(resources.workers, cpus, gpus)
    if at_once(share, nodes) < 1:
        has = " + ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "nothing"
        raise DoesNotFit(
            f"a Run asks for {share.workers} workers with {share.cpus} CPUs and {share.gpus:g} "
            f"GPUs each; the cluster has {has}: lower resources.workers, cpus_per_worker or "
            "gpus_per_worker"
        )
    return share


def at_once(share: ResourceRequest, nodes: Sequence[Node]) -> int:
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


_MOST = 10_000  # actors and groups that are looked at


_ORPHAN_SECONDS = 75.0  # a living controller gives a start up after 60


_LOOK_SECONDS = 1.0


_ORPHANS_SECONDS = 15.0  # between two looks at all actors of the cluster


_NODE_SECONDS = 600.0  # how long a node that is needed may be away


def cluster_nodes() -> list[Node]:
    """The living nodes of the cluster and all they have."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(item.get("CPU", 0.0), item.get("GPU", 0.0)) for item in found]


def has_room(share: ResourceRequest) -> bool:
    """Whether a Run could be placed now."""
    free = available_resources_per_node().values()
    return at_once(share, [Node(item.get("CPU", 0.0), item.get("GPU", 0.0)) for item in free]) > 0


def wait_for_room(share: ResourceRequest, name: str) -> bool:
    """Other studies may have what this one counted on. Returns whether there is room; there is none
    when the cluster has become too small and stays so. name: of what waits."""
    fitted, looked, orphans = time.monotonic(), 0.0, Orphans()
    while not has_room(share):
        if not looked:
            log.info("%s: waits for room on the cluster", name)
        if time.monotonic() - looked > _ORPHANS_SECONDS:
            looked = time.monotonic()
            orphans.give_back()
        if at_once(share, cluster_nodes()):
            fitted = time.monotonic()
        elif time.monotonic() - fitted > _NODE_SECONDS:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


class Orphans:
    """Placement groups whose controller died before any actor used them. Ray does not give them
    back, and those of a job that has ended neither, if it ended while they waited for room."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # id → when it was first seen without an actor

    def give_back(self) -> None:
        """Remove those that nobody has used for longer than a start may take."""
        now, job = time.monotonic(), ray.get_runtime_context().get_job_id()
        try:
            actors = list_actors(detail=True, limit=_MOST)
            groups = list_placement_groups(detail=True, limit=_MOST)
            jobs = list_jobs(detail=True, limit=_MOST)
        except RayStateApiException as error:
            log.warning("cannot look for orphaned placement groups: %s", one_line(error))
            return
        ended = {each.job_id for each in jobs if each.status in ("SUCCEEDED", "FAILED", "STOPPED")}
        used = {item.placement_group_id for item in actors if item.state != "DEAD"}
        for group in groups:
            name = group.placement_group_id
            lost = group.creator_job_id in ended and not group.is_detached
            ours = group.creator_job_id == job
            if not (lost or ours) or group.state == "REMOVED" or name in used:
                self._since.pop(name, None)
                continue
            since = now - self._since.setdefault(name, now)
            if lost or since > _ORPHAN_SECONDS:
                log.warning("placement group %s is orphaned, it is given back", name)
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
