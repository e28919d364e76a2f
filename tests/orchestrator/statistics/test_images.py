"""Tests of tests over images: values computed by hand, and what they promise of chance."""

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics.images import bootstrap_test, mcnemar, share_test


@pytest.mark.parametrize(("first", "second", "p"), [
    (9, 1, 22 / 1024),  # 2 * (1 + 10) / 2¹⁰
    (1, 9, 22 / 1024),
    (5, 0, 2 / 32),
    (2, 0, 0.5),
    (3, 3, 1.0),
    (0, 0, 1.0),
    (3, 2, 1.0),
    (7, 2, 92 / 512),  # 2 * (1 + 9 + 36) / 2⁹
])  # fmt: skip
def test_mcnemar_by_hand(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, rel=0.02)
    if first + second:
        assert mcnemar(first, second) == pytest.approx(
            stats.binomtest(first, first + second).pvalue
        )


def answers(both: int, first: int, second: int, neither: int):
    """Whether two models have each image right, from the counts of a table."""
    one = [True] * (both + first) + [False] * (second + neither)
    other = [True] * both + [False] * first + [True] * second + [False] * neither
    return np.array(one), np.array(other)


def test_one_pair_by_hand() -> None:
    """b 25, c 10 of 100: d̄ 0.15, s² = (35 - 100 * 0.15²) / 99 = 0.330808, half 1.959964 s / 10."""
    test = share_test([answers(40, 25, 10, 25)], (0,))
    assert (test.images, test.seeds, test.mean) == (100, (0,), pytest.approx(0.15))
    half = 1.959964 * math.sqrt(0.3308081) / 10
    assert test.interval == pytest.approx((0.15 - half, 0.15 + half), abs=1e-6)
    assert test.p == test.mcnemar[0] == pytest.approx(stats.binomtest(10, 35).pvalue)


def test_several_pairs_count_each_image_once() -> None:
    """The same pair three times is no more evidence than once: z = 15 / √35 = 2.5355."""
    once = answers(40, 25, 10, 25)
    test = share_test([once] * 3, (0, 1, 2))
    alone = share_test([once], (0,))
    assert test.interval == pytest.approx(alone.interval)
    assert test.p == pytest.approx(math.erfc(15 / math.sqrt(35) / math.sqrt(2)))
    assert test.mcnemar == alone.mcnemar * 3


def test_pairs_of_different_folds_count_all_their_images() -> None:
    """Two halves of 100 images, tested by one pair each, are one pair on 100 images."""
    one, other = answers(40, 25, 10, 25)
    halves = [(one[part], other[part]) for part in (slice(50), slice(50, 100))]
    test, whole = share_test(halves, (0, 1), [0, 1]), share_test([(one, other)], (0,))
    assert (test.images, test.mean, test.p) == (100, whole.mean, whole.p)
    assert test.interval == pytest.approx(whole.interval)
    twice = share_test([*halves, *halves], (0, 1, 2, 3), [0, 1, 0, 1])
    assert twice.images == 100 and twice.interval == pytest.approx(whole.interval)


def test_equal_answers_differ_nowhere() -> None:
    one, _ = answers(10, 5, 0, 5)
    test = share_test([(one, one), (one, one)], (0, 1))
    assert (test.mean, test.p, test.interval) == (0.0, 1.0, (0.0, 0.0))


def test_intervals_cover_and_false_findings_are_rare() -> None:
    """2,000 pairs of models of equal accuracy on 200 images that both find easy or hard."""
    rng, images = np.random.default_rng(0), 200
    covered = found = 0
    for _ in range(2000):
        chance = rng.beta(1, 1, images)
        one, other = rng.random((2, images)) < chance
        test = share_test([(one, other)], (0,))
        covered += test.interval.low <= 0 <= test.interval.high
        found += test.p < 0.05
    assert 0.93 <= covered / 2000 <= 0.97  # standard error 0.005
    assert found / 2000 <= 0.05


def mean_of(values):
    """The mean over drawn images, as a figure that a bootstrap can draw."""
    return lambda weights: weights @ values / weights.sum(1)


def test_bootstrap_of_a_mean_is_close_to_its_formula_and_the_same_each_time() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(0.5, 1, 400), rng.normal(0.3, 1, 400)
    test = bootstrap_test([(mean_of(one), mean_of(other))], 400, (7,))
    half = 1.96 * (one - other).std(ddof=1) / 20
    assert test.mean == pytest.approx((one - other).mean())
    assert test.interval == pytest.approx((test.mean - half, test.mean + half), abs=0.02)
    assert test.p == pytest.approx(stats.ttest_rel(one, other).pvalue, abs=0.02)
    assert test == bootstrap_test([(mean_of(one), mean_of(other))], 400, (7,))


def test_bootstrap_of_equal_figures_finds_nothing() -> None:
    values = np.arange(50.0)
    test = bootstrap_test([(mean_of(values), mean_of(values))], 50, (0,))
    assert (test.mean, test.interval, test.p) == (0.0, (0.0, 0.0), 1.0)


def test_bootstrap_is_rarely_wrong_where_nothing_differs() -> None:
    rng, found = np.random.default_rng(2), 0
    for _ in range(60):
        one, other = rng.normal(0, 1, (2, 60))
        found += bootstrap_test([(mean_of(one), mean_of(other))], 60, (0,)).p < 0.05
    assert found <= 9  # more than 15 % of 60 comes by chance once in a thousand times at 5 %
