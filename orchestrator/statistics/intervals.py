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
    values: Sequence[float],
    confidence: float = CONFIDENCE,
    within: Interval | None = None,
    overlap: float = 0.0,
) -> Interval | None:
    """Return Student's interval of the mean of independent values: m ± t(n - 1) s √(1/n + overlap).

    s: sample standard deviation; t: quantile of Student's distribution with n - 1 degrees of
    freedom (Student 1908, Biometrika 6, 1-25). It assumes normally distributed values, and covers
    the mean in `confidence` of all samples then, also at n = 2. within: the range of what is
    measured, such as [0, 1] of a share; the interval is cut to it. overlap: 0 for independent
    values, else as `overlap_of_folds` says.

    None where nothing can be computed: fewer than two values, one that is not finite, or values
    that are all equal, whose spread is not known to be zero beyond them.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)) or all_equal(values):
        return None
    half = critical_t(len(values) - 1, 1 - confidence) * statistics.stdev(values)
    mean, half = statistics.mean(values), half * math.sqrt(1 / len(values) + overlap)
    low, high = mean - half, mean + half
    if within is not None:
        low, high = max(low, within.low), min(high, within.high)
    return Interval(low, high)


def overlap_of_folds(folds: int) -> float:
    """Return the term for values that are not independent since each is tested on another fold of
    the same images: test images per image that is learned from, 1 / (folds - 1).

    Training sets of two folds share most of their images, so the values vary less than those of new
    images would, and s²/n is too small a variance of their mean: a plain t test then finds
    differences that are not there. (1/n + n_test/n_train) s² corrects for it (Nadeau and Bengio
    2003, Inference for the Generalization Error, Machine Learning 52, 239-281, section 3.2;
    for cross-validation that is repeated with other seeds Bouckaert and Frank 2004, PAKDD, LNCS
    3056, 3-12). It is an approximation: no unbiased estimate of that variance exists (Bengio and
    Grandvalet 2004, JMLR 5, 1089-1105). Validation images count as learned from, since they choose
    the epoch.
    """
    return 1 / (folds - 1)


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
