"""Tests whether two configurations differ, by their difference in every seed.

What a seed does to both alike (its order of images, its initialization) is in no difference.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.statistics.intervals import Interval, all_equal, mean_interval

ALPHA = 0.05
LEAST_PAIRS = 6  # from which a sign-flip test can reach 0.05: 2 / 2⁶ = 0.031
_ENUMERATED = 14  # pairs whose signs are all tried; of more, so many draws:
_DRAWS = 50_000


@dataclass(frozen=True)
class PairedTest:
    """Holds what the differences of n pairs say.

    mean, std, interval: of the difference, first minus second; None where undefined, as in
    `intervals.mean_interval`. p: two-sided, of the paired t test. sign_flip: two-sided p that
    assumes no distribution, from LEAST_PAIRS pairs on. equal: whether all differences are equal.
    finite: whether all values are.
    """

    n: int
    mean: float | None
    std: float | None
    interval: Interval | None
    p: float | None
    sign_flip: float | None
    equal: bool
    finite: bool


def paired_test(
    first: Sequence[float], second: Sequence[float], overlap: float = 0.0
) -> PairedTest:
    """Compare two sequences of equal length, pair by pair: Student's paired t test.

    t = m / (s √(1/n + overlap)) of the differences, with n - 1 degrees of freedom (Student 1908).
    Where all differences are equal (s = 0) t is undefined: no interval and no p. overlap: 0 for
    independent pairs, else as `intervals.overlap_of_folds` says: the corrected resampled t test.
    Then there is no sign-flip test, which needs independent pairs.
    """
    differences = [one - other for one, other in zip(first, second, strict=True)]
    n = len(differences)
    if not all(map(math.isfinite, differences)):
        return PairedTest(n, None, None, None, None, None, equal=False, finite=False)
    if n < 2:
        mean = differences[0] if differences else None
        return PairedTest(n, mean, None, None, None, None, equal=False, finite=True)
    mean, std = statistics.mean(differences), statistics.stdev(differences)
    scale = max(map(abs, (*first, *second)))
    equal = all_equal(differences, scale)
    if all_equal([*differences, 0.0], scale):
        mean = 0.0  # but for rounding
    std = 0.0 if equal else std
    interval = None if equal else mean_interval(differences, overlap=overlap)
    p = None if equal else _t_test(mean, std * math.sqrt(1 / n + overlap), n - 1)
    flipped = sign_flip_p(differences) if n >= LEAST_PAIRS and not overlap else None
    return PairedTest(n, mean, std, interval, p, flipped, equal, finite=True)


def _t_test(mean: float, error: float, freedom: int) -> float:
    """error: standard error of the mean."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(mean) / error))


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of the sign-flip permutation test (Fisher 1935, The Design of
    Experiments, section 21).

    If the two do not differ, every difference is as likely with the other sign. p is the share of
    all 2ⁿ signs whose mean is as far from zero as the observed one; of many pairs, of random signs
    (the same ones in each call), the observed signs counted among them.
    """
    import numpy as np

    values, n = np.asarray(differences), len(differences)
    least = abs(values.sum()) - 1e-12 * np.abs(values).sum()  # equal sums, but for rounding
    if n <= _ENUMERATED:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1  # (2ⁿ, n)
        return float((np.abs((1 - 2 * bits) @ values) >= least).mean())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(_DRAWS, n))
    extreme = int((np.abs(signs @ values) >= least).sum())
    return (extreme + 1) / (_DRAWS + 1)


def least_sign_flip_p(n: int) -> float:
    """Return the smallest p that a two-sided sign-flip test of n pairs can give: 2 / 2ⁿ."""
    return min(1.0, 2.0 ** (1 - n))
