"""Cuts are stratified, complete, deterministic, and independent from class to class."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data import splits

COUNTS = st.lists(st.integers(2, 50), min_size=2, max_size=8)


def labelled(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


@given(COUNTS, st.floats(0.001, 0.5))
def test_a_fraction_takes_at_least_one_and_leaves_at_least_one(
    counts: list[int], share: float
) -> None:
    taken = splits.fraction(np.array(counts), share)
    assert (taken >= 1).all() and (taken < counts).all()
    assert np.abs(taken - np.array(counts) * share).max() <= 1


def test_a_fraction_of_one_image_or_none_is_none() -> None:
    assert splits.fraction(np.array([0, 1, 2]), 0.5).tolist() == [0, 0, 1]


@given(COUNTS, st.data())
def test_a_quota_adds_up_and_stays_within_each_class(
    counts: list[int], data: st.DataObject
) -> None:
    low, high = 2 * len(counts), sum(counts)
    limit = data.draw(st.integers(low, max(low, high - 1)))
    if limit < high:
        quota = splits.quota(np.array(counts), limit)
        assert quota.sum() == limit
        assert (quota >= 2).all() and (quota <= counts).all()


def test_a_quota_follows_the_class_sizes() -> None:
    assert splits.quota(np.array([102, 52, 2]), 36).tolist() == [22, 12, 2]


@given(COUNTS, st.floats(0.01, 0.9), st.integers(0, 3), st.data())
def test_a_limited_set_has_some_of_every_part_of_the_whole_one(
    counts: list[int], share: float, seed: int, data: st.DataObject
) -> None:
    """Who learns from all images has not seen those that a few are validated and tested with."""
    counts = [count + 3 for count in counts]
    labels, classes = labelled(*counts), tuple("abcdefgh"[: len(counts)])
    limit = data.draw(st.integers(2 * len(counts), sum(counts)))
    parts = {"train": np.arange(len(labels))}
    whole, some = (
        splits.complete(parts, labels, classes, splits.Cuts(share, seed, most))
        for most in (None, limit)
    )
    for part in ("train", "val", "test"):
        assert np.isin(some[part], whole[part]).all()
        assert (splits.class_counts(labels[some[part]], len(counts)) >= 1).all()
    known = len(whole["train"]) + len(whole["val"])
    assert len(some["train"]) + len(some["val"]) == min(limit, known)


def test_divide_is_stratified_and_loses_nothing() -> None:
    labels = labelled(10, 20)
    counts = np.array([3, 5])
    rest, taken = splits.divide(np.arange(30), labels, counts, ("a", "b"), ("val", 0))
    assert sorted([*rest, *taken]) == list(range(30))
    assert splits.class_counts(labels[taken], 2).tolist() == [3, 5]
    assert (np.diff(taken) > 0).all() and (np.diff(rest) > 0).all()


@pytest.mark.parametrize("other", [("test", 0), ("val", 1)])
def test_divide_repeats_itself_and_changes_with_purpose_and_seed(other: tuple[str, int]) -> None:
    def taken(draw: tuple[str, int]) -> list[int]:
        counts = np.array([10, 10])
        _, chosen = splits.divide(np.arange(80), labelled(40, 40), counts, ("a", "b"), draw)
        return chosen.tolist()

    assert taken(("val", 0)) == taken(("val", 0))
    assert taken(("val", 0)) != taken(other)


def test_a_class_keeps_its_cut_when_another_is_added_before_it() -> None:
    _, alone = splits.divide(np.arange(40), labelled(40), np.array([8]), ("b",), ("val", 0))
    _, both = splits.divide(
        np.arange(60), labelled(20, 40), np.array([4, 8]), ("a", "b"), ("val", 0)
    )
    assert (both[both >= 20] - 20).tolist() == alone.tolist()


@pytest.mark.parametrize(
    ("counts", "limit", "least", "shares"),
    [
        ([40, 20], 9, 2, [6, 3]),
        ([100, 1, 1], 10, 1, [8, 1, 1]),
        ([100, 3, 1], 6, 2, [3, 2, 1]),
        ([5, 5, 5], 14, 1, [5, 5, 4]),
        ([3, 0], 2, 1, [2, 0]),
    ],
)
def test_a_limit_of_a_part_follows_the_proportions(
    counts: list[int], limit: int, least: int, shares: list[int]
) -> None:
    assert splits.proportional(np.array(counts), limit, least).tolist() == shares
