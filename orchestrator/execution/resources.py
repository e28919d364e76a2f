"""Compare what a cluster has with what a Run takes of it, and wait until there is room.

First the arithmetic, which needs no cluster; then what asks Ray; last the placement groups that Ray
does not give back by itself.
"""

import logging
import time
from collections.abc import Mapping, Sequence
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

if TYPE_CHECKING:  # every worker imports this file, and the study schema loads all data sets
    from orchestrator.config.study_schema import Resources

log = logging.getLogger("orchestrator")
_POLL_SECONDS = 1.0
_ORPHAN_CHECK_SECONDS = 15.0  # between two checks of all placement groups of the cluster
_ORPHAN_SECONDS = 75.0  # a living controller gives up a start after 60
_LOST_NODE_SECONDS = 600.0  # how long a node that a Run needs may be away
_MOST_LISTED = 10_000  # actors and placement groups that Ray is asked for


class DoesNotFit(UserError):
    """A Run asks for more than the cluster has; one line that names both and what to lower."""


@dataclass(frozen=True)
class Node:
    """CPUs and GPUs of one machine."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class ResourceRequest:
    """Says what a Run gets: a number of workers, and the CPUs and GPUs of each."""

    workers: int
    cpus: int
    gpus: float


def request_of(resources: "Resources", nodes: Sequence[Node]) -> ResourceRequest:
    """Turn `auto` into numbers. Raises DoesNotFit when the cluster cannot place a single Run."""
    gpus = resources.gpus_per_worker
    if gpus == "auto":
        gpus = 1.0 if any(node.gpus >= 1 for node in nodes) else 0.0
    usable = [node for node in nodes if node.gpus >= gpus and node.cpus >= 1]
    cpus = resources.cpus_per_worker
    if cpus == "auto":
        cpus = _equal_cpus(resources.workers, gpus, usable)
    request = ResourceRequest(resources.workers, cpus, gpus)
    if at_once(request, nodes) < 1:
        has = " + ".join(f"{node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "nothing"
        raise DoesNotFit(
            f"a Run asks for {request.workers} workers with {request.cpus} CPUs and "
            f"{request.gpus:g} GPUs each; the cluster has {has}: lower resources.workers, "
            "cpus_per_worker or gpus_per_worker"
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


def cluster_nodes() -> list[Node]:
    """Return the living nodes of the cluster, with all they have, used or not."""
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _node(resources: Mapping[str, float]) -> Node:
    return Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0))


def has_room(request: ResourceRequest) -> bool:
    """Return whether a Run could be placed now."""
    free = [_node(resources) for resources in available_resources_per_node().values()]
    return at_once(request, free) > 0


def wait_for_room(request: ResourceRequest, name: str) -> bool:
    """Wait while other studies use what a Run needs. Returns whether there is room now; False when
    the cluster has become too small and stays so.

    name: of what waits, for the log.
    """
    last_fit, last_check, orphans = time.monotonic(), 0.0, OrphanedGroups()
    while not has_room(request):
        if not last_check:
            log.info("%s: waits for room on the cluster", name)
        if time.monotonic() - last_check > _ORPHAN_CHECK_SECONDS:
            last_check = time.monotonic()
            orphans.remove()
        if at_once(request, cluster_nodes()):
            last_fit = time.monotonic()
        elif time.monotonic() - last_fit > _LOST_NODE_SECONDS:
            return False
        time.sleep(_POLL_SECONDS)
    return True


class OrphanedGroups:
    """Placement groups whose controller died before any actor used them. Ray does not give them
    back, nor those of a job that ended while they waited for room."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # id → when it was first seen without an actor

    def remove(self) -> None:
        """Give back those of ended jobs, and those of this job that no actor has used for longer
        than a start takes. The groups of other jobs that run are left alone."""
        now, job = time.monotonic(), ray.get_runtime_context().get_job_id()
        try:
            actors = list_actors(detail=True, limit=_MOST_LISTED)
            groups = list_placement_groups(detail=True, limit=_MOST_LISTED)
            jobs = list_jobs(detail=True, limit=_MOST_LISTED)
        except RayStateApiException as error:
            log.warning("cannot look for orphaned placement groups: %s", one_line(error))
            return
        ended = {item.job_id for item in jobs if item.status in ("SUCCEEDED", "FAILED", "STOPPED")}
        used = {actor.placement_group_id for actor in actors if actor.state != "DEAD"}
        for group in groups:
            name = group.placement_group_id
            of_ended_job = group.creator_job_id in ended and not group.is_detached
            candidate = of_ended_job or group.creator_job_id == job
            if not candidate or group.state == "REMOVED" or name in used:
                self._since.pop(name, None)
                continue
            unused_seconds = now - self._since.setdefault(name, now)
            if of_ended_job or unused_seconds > _ORPHAN_SECONDS:
                log.warning("placement group %s is orphaned: it is given back", name)
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
