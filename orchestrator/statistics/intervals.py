"""Computes 95 % intervals of a mean over seeds and of a share of test images."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95
_ROUNDING = 1e-9  # a spread below this share of the values is rounding, not a spread


class Interval(NamedTuple):
    """The values that the data do not rule out, both ends included."""

    low: float
    high: float


def mean_interval(
    values: Sequence[float], confidence: float = CONFIDENCE, within: Interval | None = None
) -> Interval | None:
    """Return Student's interval of the mean of independent values: m ± t(n - 1) s / √n.

    s: sample standard deviation; t: quantile of Student's distribution with n - 1 degrees of
    freedom (Student 1908, Biometrika 6, 1-25). It assumes normally distributed values, and covers
    the mean in `confidence` of all samples then, also at n = 2. within: the range of what is
    measured, such as [0, 1] of a share; the interval is cut to it.

    None where nothing can be computed: fewer than two values, one that is not finite, or values
    that are all equal, whose spread is not known to be zero beyond them.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)) or all_equal(values):
        return None
    half = critical_t(len(values) - 1, 1 - confidence) * statistics.stdev(values)
    mean, half = statistics.mean(values), half / math.sqrt(len(values))
    low, high = mean - half, mean + half
    if within is not None:
        low, high = max(low, within.low), min(high, within.high)
    return Interval(low, high)


def critical_t(freedom: int, alpha: float) -> float:
    """Return the t that |T| exceeds with probability `alpha`, for so many degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - alpha / 2))


def all_equal(values: Sequence[float], scale: float | None = None) -> bool:
    """Return whether values differ by no more than rounding. scale: size of the numbers that they
    were computed from; default: of the values."""
    size = max(map(abs, values), default=0.0) if scale is None else scale
    return max(values, default=0.0) - min(values, default=0.0) <= _ROUNDING * size


def share_interval(hits: float, count: int) -> Interval:
    """Return Wilson's 95 % interval of a share, from `hits` of `count` independent images.

    (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96 (Wilson 1927, JASA 22,
    209-212). Raises ValueError without images.
    """
    if count < 1:
        raise ValueError("a share of no images has no interval")
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, term = hits / count, z * z / count
    half = z * math.sqrt(share * (1 - share) / count + term / (4 * count))
    middle, scale = share + term / 2, 1 + term
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))
