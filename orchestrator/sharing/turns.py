"""Decide whether a study may start a Run now. Each driver decides for itself, by what all say: the
decision is a function of the claims and the nodes, so that all come to the same one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from orchestrator.needs.nodes import Node
from orchestrator.planning.placement import ResourceRequest, at_once, holds_workers, left_beside
from orchestrator.sharing.claims import Claim, counted
from orchestrator.sharing.order import in_order


def may_start(
    request: ResourceRequest, own: Claim, others: Sequence[Claim], nodes: Sequence[Node]
) -> Claim | None:
    """Return the claim for which a Run of `own` must wait; None where it may start now.

    What those need who come first is set aside: places for all of their Runs where they have a
    higher priority, else for the next one of each kind. Where one of them needs more than is free,
    no node that it could use is taken from it, so that a large Run is not kept waiting by small
    ones for ever. A Run that no nodes of the cluster hold waits for nodes, and for nobody's turn.
    """
    if at_once(request, nodes) < 1:
        return None
    free = left_free((own, *others), nodes)
    for claim in in_order((own, *others), nodes):
        if claim.job == own.job:
            break
        for wanted, count in claim.waiting:
            most = at_once(wanted, nodes)
            runs = min(count, most) if claim.priority > own.priority else 1
            left = left_beside(wanted, free, runs)
            if left is None and most:
                left = [
                    replace(rest, cpus=0.0) if holds_workers(wanted, node) else rest
                    for node, rest in zip(nodes, free, strict=True)
                ]
            if left is not None and left_beside(request, left) is None:
                return claim
            free = free if left is None else left
    return None if left_beside(request, free) is not None else own


def left_free(claims: Iterable[Claim], nodes: Sequence[Node]) -> list[Node]:
    """Return what the Runs of all studies leave of the nodes. It is counted and not asked of Ray:
    a Run that has just begun uses nothing yet."""
    free = list(nodes)
    for claim in sorted(claims, key=lambda claim: claim.job):
        for request, count in claim.running:
            for _ in range(count):
                left = left_beside(request, free)
                free = free if left is None else left  # its node may have left the cluster
    return free


class Board(Protocol):
    """Where the drivers of a cluster read each other's claims."""

    def others(self) -> list[Claim]:
        """Return the claims of other drivers that live."""

    def write(self, claim: Claim) -> None:
        """Show a claim to the others."""


class Turns:
    """Takes the turns of one study on a cluster."""

    def __init__(self, board: Board, own: Claim) -> None:
        self._board, self._own = board, own
        self._others: list[Claim] = []
        self._started = False  # a Run, since the others were heard

    @property
    def rests(self) -> bool:
        """Return whether this study has had its turn: it has started a Run, and others wait."""
        return self._started and any(claim.waiting for claim in self._others)

    def announce(
        self, waiting: Iterable[ResourceRequest], running: Iterable[ResourceRequest]
    ) -> None:
        """Say what the study waits for and uses, and hear what the others do."""
        wait, run = counted(waiting), counted(running)
        self._own = replace(self._own, waiting=wait, running=run, beat=self._own.beat + 1)
        self._board.write(self._own)
        self._others, self._started = self._board.others(), False

    def before(self, request: ResourceRequest, nodes: Sequence[Node]) -> str:
        """Return what a Run must wait for, in words; empty where it may start now."""
        claim = may_start(request, self._own, self._others, nodes)
        if claim is None:
            return ""
        if claim.job == self._own.job:
            return "waits for room: Runs of other studies use the cluster"
        why = "comes first" if claim.priority > self._own.priority else "uses less of the cluster"
        return f"waits for its turn: study {claim.study} {why}"

    def took(self, request: ResourceRequest) -> None:
        """Say that a Run starts."""
        running = [item for item, count in self._own.running for _ in range(count)]
        self._own = replace(self._own, running=counted([*running, request]))
        self._started = True
        self._board.write(self._own)
