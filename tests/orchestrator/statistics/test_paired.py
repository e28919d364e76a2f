"""Tests of paired differences: values computed by hand, and what they promise of chance."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from orchestrator.statistics.intervals import (
    Interval,
    all_equal,
    critical_t,
    mean_interval,
    overlap_of_folds,
    share_interval,
)
from orchestrator.statistics.multiple import holm
from orchestrator.statistics.paired import least_sign_flip_p, paired_test, sign_flip_p
from orchestrator.statistics.power import seeds_needed

# Student's own data (1908): hours of sleep gained by ten patients with two drugs. Published:
# difference 1.58, s 1.23, t 4.0621 with 9 degrees of freedom, p 0.002833, interval 0.700 to 2.460.
ONE = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
OTHER = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]


def test_students_sleep_data_have_the_published_values() -> None:
    test = paired_test(ONE, OTHER)
    assert (test.n, test.equal, test.finite) == (10, False, True)
    assert test.mean == pytest.approx(1.58)
    assert test.std == pytest.approx(1.23, abs=0.001)
    assert test.p == pytest.approx(0.002833, abs=1e-6)
    assert test.interval == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_three_differences_by_hand() -> None:
    """Mean 2, s 1, t(0.975, 2) 4.302653: 2 ± 4.302653 / √3 = 2 ± 2.484138. t 3.4641, p 0.0742."""
    test = paired_test([11.0, 12.0, 13.0], [10.0, 10.0, 10.0])
    assert test.interval == pytest.approx((-0.484138, 4.484138), abs=1e-6)
    assert test.p == pytest.approx(0.0741799, abs=1e-6)
    assert test.sign_flip is None


@pytest.mark.parametrize("n", [2, 3, 7, 30])
def test_t_interval_and_p_are_those_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    one, other = rng.normal(0.2, 1, n), rng.normal(0, 1, n)
    expected = stats.ttest_rel(one, other)
    test = paired_test(one.tolist(), other.tolist())
    assert test.p == pytest.approx(expected.pvalue)
    assert test.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_five_folds_by_hand() -> None:
    """Differences 1 to 5: mean 3, s² 2.5, √((1/5 + 1/4) 2.5) = 1.0606602, t(0.975, 4) 2.776445:
    3 ± 2.944865. t 2.828427, p = P(|T₄| > √8) = 0.0474207. A plain test would say p 0.0132."""
    test = paired_test([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5, overlap_of_folds(5))
    assert test.interval == pytest.approx((3 - 2.944865, 3 + 2.944865), abs=1e-5)
    assert test.p == pytest.approx(2 * stats.t.sf(math.sqrt(8), 4))
    assert test.p == pytest.approx(0.0474207, abs=1e-7)
    assert paired_test([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5).p == pytest.approx(0.0132, abs=1e-4)


def test_folds_have_no_test_that_needs_independent_pairs() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 7.0]
    assert paired_test(values, [0.0] * 6).sign_flip == 2 / 64
    assert paired_test(values, [0.0] * 6, overlap_of_folds(3)).sign_flip is None


def test_the_corrected_test_finds_fewer_differences_that_are_not_there() -> None:
    """Two learners that predict the mean of the training images, of two columns that do not
    differ: the loss of each on five folds of 50 images, 400 times. Of 100 such pairs a test at 0.05
    may call 5 different."""
    rng, found = np.random.default_rng(0), {0.0: 0, overlap_of_folds(5): 0}
    for _ in range(400):
        images = rng.normal(size=(50, 2))
        losses = [
            ((images[test] - np.delete(images, test, axis=0).mean(0)) ** 2).mean(0)
            for test in np.split(np.arange(50), 5)
        ]
        first, second = np.array(losses).T.tolist()
        for overlap in found:
            found[overlap] += (paired_test(first, second, overlap).p or 1.0) < 0.05
    plain, corrected = found.values()
    assert corrected < 20 < 1.5 * plain


def test_sign_flip_counts_every_sign() -> None:
    """Of ±1 ±2 ±3 the sums 6 and -6 are as far as 6: 2 of 8. Of 1, 2, -3 all are."""
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip_p([1.0, 2.0, -3.0]) == 1.0
    assert sign_flip_p([0.1] * 6) == 2 / 64 == least_sign_flip_p(6)
    assert paired_test([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.0] * 6).sign_flip == 2 / 64


def test_sign_flip_is_that_of_scipy_and_of_many_pairs_close_to_it() -> None:
    values = np.random.default_rng(1).normal(0.5, 1, 10)
    expected = stats.permutation_test((values,), np.sum, permutation_type="samples").pvalue
    assert sign_flip_p(values.tolist()) == pytest.approx(expected)
    many = np.random.default_rng(2).normal(0.3, 1, 40).tolist()
    assert (
        sign_flip_p(many)
        == sign_flip_p(many)
        == pytest.approx(stats.ttest_1samp(many, 0).pvalue, abs=0.02)
    )


def test_below_six_pairs_no_sign_flip_test_reaches_five_per_cent() -> None:
    assert [least_sign_flip_p(n) for n in (1, 2, 3, 5, 6)] == [1, 0.5, 0.25, 0.0625, 0.03125]


@pytest.mark.parametrize(("one", "other", "mean"), [
    ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], 0.1),  # equal, but for rounding: 0.1, 0.09999999999999998
    ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], 0.0),
    ([0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2], 0.0),
])  # fmt: skip
def test_equal_differences_have_no_interval_and_no_p(one, other, mean) -> None:
    test = paired_test(one, other)
    assert test.equal and test.std == 0.0
    assert (test.interval, test.p) == (None, None)
    assert test.mean == pytest.approx(mean) and (mean or test.mean == 0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_test(bad: float) -> None:
    test = paired_test([0.5, bad, 0.7], [0.1, 0.2, bad])
    assert (test.n, test.finite) == (3, False)
    assert (test.mean, test.interval, test.p, test.sign_flip) == (None, None, None, None)


def test_one_pair_and_none_have_no_test() -> None:
    assert paired_test([0.5], [0.25]).mean == 0.25
    assert paired_test([0.5], [0.25]).interval is None
    assert paired_test([], []).mean is None
    with pytest.raises(ValueError):
        paired_test([1.0, 2.0], [1.0])


def test_an_interval_of_a_mean_is_cut_to_what_is_possible() -> None:
    """0.5 ± 12.7062 * 0.0707107 / √2 = 0.5 ± 0.635310."""
    assert mean_interval([0.45, 0.55]) == pytest.approx((-0.135310, 1.135310), abs=1e-6)
    assert mean_interval([0.45, 0.55], within=Interval(0, 1)) == (0, 1)
    assert mean_interval([0.4, 0.4]) is None
    assert mean_interval([0.4]) is None
    assert mean_interval([0.4, math.nan]) is None
    assert all_equal([]) and not all_equal([1.0, 1.001])


def test_the_interval_of_a_share_is_wilsons() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, 15 of 148, 0 of 20."""
    assert share_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert share_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert share_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(ValueError):
        share_interval(0, 0)


def test_holm_by_hand() -> None:
    """4 * 0.005; 3 * 0.01; then 2 * 0.03 = 0.06, and 0.04 is no less than that."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, None, 0.04]) == [0.02, None, 0.04]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == [] and holm([0.3]) == [0.3]


@pytest.mark.parametrize(("effect", "needed"), [(0.5, 34), (0.8, 15), (1.0, 10), (0.2, 199)])
def test_seeds_needed_are_those_of_published_tables(effect: float, needed: int) -> None:
    """Paired t test, two-sided 0.05, power 0.8: the values that G*Power prints."""
    assert seeds_needed(effect, 1.0, 0.05) == needed
    assert seeds_needed(-effect, 1.0, 0.05) == needed


def test_seeds_needed_of_nothing_and_of_very_much() -> None:
    assert seeds_needed(0.0, 1.0, 0.05) is None
    assert seeds_needed(0.001, 1.0, 0.05) is None
    assert seeds_needed(1e6, 1.0, 0.05) == 2
    counts = [seeds_needed(effect, 1.0, 0.05) or 0 for effect in (0.1, 0.2, 0.5, 1, 2, 4, 8)]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_intervals_cover_and_false_findings_are_as_rare_as_promised(n: int) -> None:
    """100,000 comparisons without a difference, seeds of both sharing a part of their luck. The
    formula of `paired_test`, which the last lines hold it to, over all at once."""
    rng, sets = np.random.default_rng(n), 100_000
    luck = rng.normal(0, 2, (sets, n))
    differences = (luck + rng.normal(0, 1, (sets, n))) - (luck + rng.normal(0, 1, (sets, n)))
    mean, std = differences.mean(1), differences.std(1, ddof=1)
    half = critical_t(n - 1, 0.05) * std / math.sqrt(n)
    covered = (np.abs(mean) <= half).mean()
    assert 0.94 <= covered <= 0.96  # standard error 0.0007
    assert (mean - half > 0).mean() <= 0.05 and (mean + half < 0).mean() <= 0.05
    for row in range(50):
        test = paired_test(differences[row].tolist(), [0.0] * n)
        assert test.interval == pytest.approx((mean[row] - half[row], mean[row] + half[row]))
        assert (test.p < 0.05) == (abs(mean[row]) > half[row])


def test_a_percentile_bootstrap_over_three_seeds_would_cover_too_little() -> None:
    """Why it is not used: 0.753 of 4,000 samples, with a standard error of 0.007."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 1, (4000, 3))
    drawn = samples[:, rng.integers(0, 3, (1000, 3))].mean(2)  # (samples, draws)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
    assert 0.70 < ((low <= 0) & (high >= 0)).mean() < 0.80


def test_holm_keeps_false_findings_of_a_whole_comparison_rare() -> None:
    """Four differences against one baseline, none of them true: 20,000 comparisons."""
    rng, sets, n = np.random.default_rng(3), 20_000, 5
    values = rng.normal(0, 1, (sets, 5, n))
    differences = values[:, 1:] - values[:, :1]
    t = differences.mean(2) * math.sqrt(n) / differences.std(2, ddof=1)
    ps = 2 * stats.t.sf(np.abs(t), n - 1)
    alone = (ps < 0.05).any(1).mean()
    corrected = np.mean([min(p for p in holm(row) if p is not None) < 0.05 for row in ps.tolist()])
    assert alone > 0.08 and corrected <= 0.05


def test_sign_flip_finds_no_more_than_it_promises() -> None:
    """All 2⁶ signs of six pairs: exactly the share p of them has a p that small."""
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    ps = [
        sign_flip_p([sign * size for sign, size in zip(signs, sizes, strict=True)])
        for signs in itertools.product((1, -1), repeat=6)
    ]
    assert all(sum(other <= p for other in ps) / 64 <= p for p in ps)


def test_importing_loads_no_scipy() -> None:
    code = "import sys, orchestrator.reporting.tables, orchestrator.reporting.exports\n"
    code += "print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert not {"scipy", "numpy", "torch"} & set(loaded.decode().split())
