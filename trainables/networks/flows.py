"""Simplifies a graph of what flows between the blocks of a network: pairs of names, from → to."""

import graphlib
from collections.abc import Callable, Sequence

Flows = list[tuple[str, str]]


def bridged(flows: Flows, silent: Sequence[str]) -> Flows:
    """Remove some blocks from the flows; connect their inputs to their outputs."""
    for name in silent:
        before = [start for start, end in flows if end == name]
        after = [end for start, end in flows if start == name]
        flows = [flow for flow in flows if name not in flow]
        flows += [(start, end) for start in before for end in after]
    return [(start, end) for start, end in dict.fromkeys(flows) if start != end]


def without_cycles(flows: Flows, layers: Callable[[str], int]) -> tuple[Flows, dict[str, str]]:
    """Merge functions between the layers of a block, as in attention, into it: as long as flows
    lead from a block through functions back to it.

    layers: of a block, how many; of a cycle the block with most of them stays. Returns the flows
    that are left, and which block has taken which in: name → its name.
    """
    taken: dict[str, str] = {}
    while cycle := _cycle(flows):
        kept = max(cycle, key=lambda name: (layers(name), name))
        taken |= {name: kept for name in cycle if name != kept}
        flows = [(taken.get(start, start), taken.get(end, end)) for start, end in flows]
    return list(dict.fromkeys(flows)), taken


def _cycle(flows: Flows) -> set[str]:
    """Return the names of a cycle; none where there is none."""
    before: dict[str, set[str]] = {}
    for start, end in flows:
        if start != end:
            before.setdefault(end, set()).add(start)
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        return set(error.args[1])
    return set()
