"""Say in which order studies get their turn: by priority, then who uses least of the cluster."""

from collections.abc import Sequence

from orchestrator.needs.nodes import Node
from orchestrator.planning.placement import ResourceRequest
from orchestrator.sharing.claims import Claim


def in_order(claims: Sequence[Claim], nodes: Sequence[Node]) -> list[Claim]:
    """Return the claims, the next one first: that of the highest priority; of equal ones that of
    the person who uses least of the cluster; of one person's the study that uses least, and the
    older one."""
    used = {claim.job: _share(claim, nodes) for claim in claims}
    by_person: dict[str, float] = {}
    for claim in claims:
        by_person[claim.person] = by_person.get(claim.person, 0.0) + used[claim.job]

    def place(claim: Claim) -> tuple[float, float, float, str]:
        person = round(by_person[claim.person], 9)  # sums of the same parts in another order
        return -claim.priority, person, round(used[claim.job], 9), claim.job

    return sorted(claims, key=place)


def _share(claim: Claim, nodes: Sequence[Node]) -> float:
    """Return the part of the cluster that Runs of a study use: CPUs or GPUs, what is more."""
    return sum(count * _part(request, nodes) for request, count in claim.running)


def _part(request: ResourceRequest, nodes: Sequence[Node]) -> float:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    parts = [(request.cpus, cpus), (request.gpus, gpus)]
    return max((request.workers * own / total for own, total in parts if total > 0), default=0.0)
