"""Says how many seeds would show a difference, if it stays as it is."""

import math

from orchestrator.statistics.intervals import critical_t

MOST = 1000  # seeds that are counted up to
_POWER = 0.8  # chance that a test of so many seeds shows the difference


def seeds_needed(mean: float, std: float, alpha: float) -> int | None:
    """Return the least number of pairs with which a paired t test at level `alpha` shows a true
    difference `mean` with a chance of 80 %, where the differences spread by `std`.

    Its power is that of Student's noncentral distribution with noncentrality √n |mean| / std
    (Cohen 1988, Statistical Power Analysis, chapter 2). Both numbers are themselves known from few
    seeds only, so the answer is a rough one. None for more than MOST, or without a difference.
    """
    if not mean or not std:
        return None
    if _power(MOST, abs(mean) / std, alpha) < _POWER:
        return None
    low, high = 1, MOST  # power(low) < _POWER <= power(high)
    while high - low > 1:
        middle = (low + high) // 2
        if _power(middle, abs(mean) / std, alpha) < _POWER:
            low = middle
        else:
            high = middle
    return high


def _power(n: int, effect: float, alpha: float) -> float:
    """Return the chance that |T| of n pairs exceeds its critical value in the right direction."""
    from scipy.special import nctdtr

    shift = math.sqrt(n) * effect
    chance = 1 - float(nctdtr(n - 1, shift, critical_t(n - 1, alpha)))
    return chance if math.isfinite(chance) else 1.0  # so far beyond that it has no digits left
