"""Ask Ray what a cluster has, wait until there is room for a Run, and give back what Ray does not
give back by itself: placement groups of processes that died.
"""

import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import ray
import ray.train
import ray.train.torch
from ray._private.state import available_resources_per_node
from ray.util import placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.state import list_actors, list_jobs, list_placement_groups
from ray.util.state.exception import RayStateApiException

from orchestrator.execution.failures import one_line
from orchestrator.needs.nodes import Node
from orchestrator.planning.placement import (
    DoesNotFit,
    ResourceRequest,
    at_once,
    least_of,
    left_beside,
    request_of,
    sizes_of,
)
from orchestrator.storage.run_log import TOLD

if TYPE_CHECKING:  # workers import this file, and need no schema
    from orchestrator.needs.resources import Resources

log = logging.getLogger("orchestrator")
_POLL_SECONDS = 1.0
_ORPHAN_CHECK_SECONDS = 15.0  # between two checks of all placement groups of the cluster
_ORPHAN_SECONDS = 75.0  # a living controller gives up a start after 60
_LOST_NODE_SECONDS = 600.0  # how long a node that a Run needs may be away
_DEMAND = "orchestrator: a Run waits for nodes"  # name of the placement groups that ask for them
_MOST_LISTED = 10_000  # actors and placement groups that Ray is asked for


def cluster_nodes() -> list[Node]:
    """Return the living nodes of the cluster, with all they have, used or not."""
    return [Node.of(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]


def check_room(wanted: Iterable["Resources"]) -> None:
    """Raise DoesNotFit where the nodes of the cluster cannot hold a Run with such resources."""
    nodes = cluster_nodes()
    for resources in wanted:
        request_of(resources, nodes)


def free_nodes() -> list[Node]:
    """Return the living nodes of the cluster, with what no process uses now."""
    free = available_resources_per_node()
    return [
        Node.of(free[node["NodeID"]], node["Labels"])
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] in free
    ]


def machines(nodes: Sequence[Node]) -> str:
    """Return what a cluster has, such as `1 machine: 2 CPUs, 0 GPUs; AMD EPYC 7763`: equal machines
    counted together, and the model of this one's CPU, where it is known."""
    counts = Counter((node.cpus, node.gpus) for node in nodes)
    parts = [
        f"{count} machine{'s' if count > 1 else ''}: {cpus:g} CPUs, {gpus:g} GPUs"
        for (cpus, gpus), count in counts.items()
    ]
    return "; ".join([*parts, *filter(None, [_cpu_model()])])


def _cpu_model() -> str:
    """Return the name of this machine's CPU; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def has_room(request: ResourceRequest) -> bool:
    """Return whether a Run could be placed now."""
    return at_once(request, free_nodes()) > 0


class Demand:
    """Asks a cluster for nodes while a Run waits for them: an autoscaler starts nodes for placement
    groups that have no place."""

    def __init__(self) -> None:
        self._group: PlacementGroup | None = None

    def set(self, request: ResourceRequest | None) -> None:
        """Ask for what a Run needs; None: ask no more. A placement group that has got its place
        would keep it from the Run."""
        if request is None and self._group is not None:
            remove_placement_group(self._group)
            self._group = None
        elif request is not None and self._group is None:
            bundles = [request.of_a_worker()] * request.workers
            where = request.selectors()
            self._group = placement_group(bundles, name=_DEMAND, bundle_label_selector=where)


class Requests:
    """Decides what Runs get on a cluster. `auto` is settled when nodes that can hold a Run are
    there, once for all Runs with the same `resources:`, so that on equal nodes they have as many
    threads."""

    def __init__(self, patient: bool, note: Callable[[str], None]) -> None:
        """patient: wait for nodes as long as it takes, and ask for them: those of a cluster come
        and go. note: is told what is waited for, and `` when all is there."""
        self.patient, self._note = patient, note
        self.nodes: list[Node] = []  # as they were seen last
        self._settled: dict[str, list[ResourceRequest]] = {}
        self._waiting: dict[str, tuple[Demand, str]] = {}  # and what it waits for

    def of(self, resources: "Resources") -> list[ResourceRequest]:
        """Return what a Run may get, the most first, as nodes differ; nothing while it waits for
        nodes. Raises DoesNotFit where none will come."""
        name = resources.model_dump_json()
        if name in self._settled:
            return self._settled[name]
        self.nodes = cluster_nodes()
        try:
            sizes = sizes_of(resources, self.nodes)
        except DoesNotFit as error:
            if not self.patient:
                raise
            self._wait(name, resources, f"waits for nodes: {error.shortage}")
            return []
        self._settled[name] = sizes
        if name in self._waiting:
            self._waiting.pop(name)[0].set(None)
            self._note(self._told())
        return sizes

    def wait_for(self, resources: "Resources") -> ResourceRequest:
        """Return what every Run can get, as soon as the nodes are there. Raises DoesNotFit."""
        while not (sizes := self.of(resources)):
            time.sleep(_POLL_SECONDS)
        return sizes[-1]

    def slots(self) -> int:
        """Return how many Runs the cluster holds at once, of those that it holds fewest of; 0 while
        none has got anything."""
        settled = [sizes[-1] for sizes in self._settled.values()]
        return min((at_once(request, self.nodes) for request in settled), default=0)

    def places(self, given: Iterable[ResourceRequest]) -> "Places":
        """Return the places that are left. given: what those Runs got that train now."""
        self.nodes = cluster_nodes()
        return Places(self.nodes, given)

    def close(self) -> None:
        """Ask the cluster for nothing any more."""
        for demand, _ in self._waiting.values():
            demand.set(None)
        self._waiting.clear()

    def _wait(self, name: str, resources: "Resources", text: str) -> None:
        demand, said = self._waiting.get(name, (Demand(), ""))
        self._waiting[name] = demand, text
        if said != text:
            log.info("%s", text, extra=TOLD)
            self._note(self._told())
        demand.set(least_of(resources))

    def _told(self) -> str:
        return "; ".join(text for _, text in self._waiting.values())


class Places:
    """Counts the places that a cluster has for Runs of one study, whatever else runs there: Runs
    that are given one wait for room. The first Run always has one: its node may come back."""

    def __init__(self, nodes: Sequence[Node], given: Iterable[ResourceRequest]) -> None:
        """given: what those Runs got that train already."""
        self._left, self._empty = list(nodes), True
        for request, runs in Counter(given).items():
            self.take(request, runs)

    def hold(self, request: ResourceRequest) -> bool:
        """Return whether there is a place for one more Run."""
        return self._empty or left_beside(request, self._left) is not None

    def largest(self, sizes: Sequence[ResourceRequest]) -> ResourceRequest | None:
        """Return the first of some requests for which there is a place; None where there is
        none."""
        return next((request for request in sizes if self.hold(request)), None)

    def take(self, request: ResourceRequest, runs: int = 1) -> None:
        """Give places to Runs."""
        left = left_beside(request, self._left, runs)
        self._left, self._empty = ([] if left is None else left), False


def wait_for_room(request: ResourceRequest, name: str, patient: bool = False) -> bool:
    """Wait while other studies use what a Run needs. Returns whether there is room now; False when
    the cluster has become too small and stays so.

    name: of what waits, for the log; patient: wait for nodes as long as it takes, and ask for them:
    those of a cluster come and go.
    """
    demand = Demand()
    try:
        return _wait_for_room(request, name, demand if patient else None)
    finally:
        demand.set(None)


def _wait_for_room(request: ResourceRequest, name: str, demand: Demand | None) -> bool:
    last_fit, last_check, orphans = time.monotonic(), 0.0, OrphanedGroups()
    lost = False  # what the Run needs
    while not has_room(request):
        if not last_check:
            log.info("%s: waits for room on the cluster", name, extra=TOLD)
        if time.monotonic() - last_check > _ORPHAN_CHECK_SECONDS:
            last_check = time.monotonic()
            orphans.remove()
        fits = at_once(request, cluster_nodes()) > 0
        if lost == fits:
            lost = not fits
            words = "has lost a node that it needs" if lost else "has the node again"
            log.info("%s: the cluster %s", name, words, extra=TOLD)
        if fits:
            last_fit = time.monotonic()
        elif demand is None and time.monotonic() - last_fit > _LOST_NODE_SECONDS:
            return False
        if demand is not None:
            demand.set(None if fits else request)
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
            candidate = of_ended_job or (group.creator_job_id == job and group.name != _DEMAND)
            if not candidate or group.state == "REMOVED" or name in used:
                self._since.pop(name, None)
                continue
            unused_seconds = now - self._since.setdefault(name, now)
            if of_ended_job or unused_seconds > _ORPHAN_SECONDS:
                log.warning("placement group %s is orphaned: it is given back", name)
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))
