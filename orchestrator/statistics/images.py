"""Tests whether trained models differ on test images, image by image.

Such a test is about these models and images such as these. It does not say whether another training
with the same recipe would differ as well: that is what seeds are for (`paired`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from orchestrator.statistics.intervals import CONFIDENCE, Interval

_RESAMPLES = 2000
_CELLS = 1 << 22  # numbers of a resample that are held at once
Figure = Callable[[Any], Any]  # weights of images (R, N) → the figure of each resample (R,)


@dataclass(frozen=True)
class ImageTest:
    """Holds what the images say of pairs of models, one pair per seed.

    images: N of the test set; seeds: those whose models are paired; mean: first minus second, the
    mean over pairs; interval: 95 %, of it over images; p: two-sided; mcnemar: exact p of each pair,
    empty where the figure is no share of images.
    """

    images: int
    seeds: tuple[int, ...]
    mean: float
    interval: Interval
    p: float
    mcnemar: tuple[float, ...] = ()


def mcnemar(only_first: int, only_second: int) -> float:
    """Return McNemar's exact two-sided p: of the images that one model alone has right, each is as
    likely the first's as the second's (McNemar 1947, Psychometrika 12, 153-157).

    2 P(X ≤ min(b, c)) for a binomial X of b + c trials with probability 1/2, at most 1.
    """
    if only_first == only_second:
        return 1.0
    from scipy.special import bdtr

    count = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), count, 0.5)))


def share_test(
    pairs: Sequence[tuple[Any, Any]], seeds: tuple[int, ...], tests: Sequence[object] | None = None
) -> ImageTest:
    """Test the difference of two accuracies. pairs: of each seed, whether the first and the second
    model have each image right, (N,) bool; tests: of each seed, which images these are, such as the
    number of the fold, None where they are the same for all.

    d(i) is the mean difference of an image over the pairs that have it, N counts all images. The
    interval is mean ± 1.96 s / √N of d. Where each image has one pair p is McNemar's. Else it is
    that of swapping all answers to an image between the two: z = Σ d / √Σ d², of which McNemar's
    test is the case of one pair.
    """
    import numpy as np

    of_test: dict[object, list[Any]] = {}  # the differences of its pairs, (N,) in -1, 0, 1
    for (one, other), test in zip(pairs, tests or [None] * len(pairs), strict=True):
        of_test.setdefault(test, []).append(np.asarray(one, float) - np.asarray(other, float))
    d = np.concatenate([np.mean(differences, axis=0) for differences in of_test.values()])
    single = all(len(differences) == 1 for differences in of_test.values())
    exact = tuple(
        mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
        for differences in of_test.values()
        for difference in differences
    )
    mean, n = float(d.mean()), len(d)
    spread = float(d.std(ddof=1)) if n > 1 else 1.0
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * spread / math.sqrt(n)
    norm = math.sqrt(float((d * d).sum()))
    z = abs(float(d.sum())) / norm if norm else 0.0
    pooled = mcnemar(int((d > 0).sum()), int((d < 0).sum()))
    p = pooled if single else math.erfc(z / math.sqrt(2))
    interval = Interval(max(-1.0, mean - half), min(1.0, mean + half))
    return ImageTest(n, seeds, mean, interval, p, exact)


def bootstrap_test(
    pairs: Sequence[tuple[Figure, Figure]], images: int, seeds: tuple[int, ...]
) -> ImageTest:
    """Test the difference of two figures of a whole set, such as mean IoU, by drawing its images
    again with replacement (Efron 1979, Annals of Statistics 7, 1-26).

    pairs: of each seed, the figure of the first and of the second model as functions of how often
    each image is drawn. The same images are drawn for all models. The interval holds the middle 95
    % of 2,000 draws, p is twice the share of draws on the other side of zero. With few images it is
    too narrow; below some 30 do not rely on it.
    """
    import numpy as np

    def difference(weights: Any) -> Any:
        return np.mean([first(weights) - second(weights) for first, second in pairs], axis=0)

    rng, drawn = np.random.default_rng(0), []
    at_once = max(1, _CELLS // images)
    for start in range(0, _RESAMPLES, at_once):
        count = min(at_once, _RESAMPLES - start)
        weights = rng.multinomial(images, np.full(images, 1 / images), count)
        drawn.append(difference(weights.astype(float)))
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    observed = float(difference(np.ones((1, images)))[0])
    if not len(values):
        return ImageTest(images, seeds, observed, Interval(-1.0, 1.0), 1.0)
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    sides = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p = min(1.0, 2 * (sides + 1) / (len(values) + 1))
    return ImageTest(images, seeds, observed, Interval(float(low), float(high)), p)
