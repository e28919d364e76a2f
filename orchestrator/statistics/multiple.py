"""Corrects p-values of several tests, so that together they err as rarely as one."""

from collections.abc import Sequence


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted by Holm's step-down method, in the order given.

    The k-th smallest of m becomes the largest of (m - j + 1) p(j) over j ≤ k, at most 1. The chance
    of one false finding among all m then stays below the level, however the tests depend on each
    other (Holm 1979, Scandinavian Journal of Statistics 6, 65-70). None, a test that could not be
    made, stays None and does not count.
    """
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    highest = 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = highest
    return adjusted
