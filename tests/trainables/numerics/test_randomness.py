"""Draws depend on what they are for alone, and look uniform and independent."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.numerics.randomness import _mix, derived_seed, permutation, uniform

COUNT = 20_000


def draws_of(seed: int = 0, epoch: int = 1, count: int = COUNT, draws: int = 5) -> Tensor:
    return uniform(seed, epoch, torch.arange(count), draws)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(np.corrcoef(one.double().numpy(), other.double().numpy())[0, 1])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20), st.data())
def test_a_sample_draws_the_same_in_any_batch_and_order(
    indices: list[int], data: st.DataObject
) -> None:
    together = uniform(3, 4, torch.tensor(indices), 6)
    order = data.draw(st.permutations(range(len(indices))))
    shuffled = uniform(3, 4, torch.tensor([indices[i] for i in order]), 6)
    assert torch.equal(shuffled, together[order])
    one = data.draw(st.sampled_from(order))
    assert torch.equal(uniform(3, 4, torch.tensor([indices[one]]), 6)[0], together[one])


def test_the_first_draws_do_not_depend_on_how_many_there_are() -> None:
    assert torch.equal(draws_of(draws=2), draws_of(draws=5)[:, :2])


def test_no_draws_and_no_samples_are_fine() -> None:
    assert draws_of(count=3, draws=0).shape == (3, 0)
    assert draws_of(count=0, draws=4).shape == (0, 4)


def test_the_global_stream_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    first, state = draws_of(count=4), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(draws_of(count=4), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("seed", "epoch"), [(1, 1), (0, 2), (1, 0), (2**40, 1)])
def test_another_seed_or_epoch_draws_something_unrelated(seed: int, epoch: int) -> None:
    before, after = draws_of(), draws_of(seed, epoch)
    assert (before == after).float().mean() < 1e-3
    assert abs(correlation(before.flatten(), after.flatten())) < 0.02


def test_neighbouring_samples_and_draws_are_unrelated() -> None:
    values = draws_of()
    for lag in (1, 2, 64):
        assert abs(correlation(values[:-lag, 0], values[lag:, 0])) < 0.03
    for one in range(4):
        assert abs(correlation(values[:, one], values[:, one + 1])) < 0.03


def test_values_are_uniform_in_every_draw() -> None:
    values = draws_of()
    assert values.dtype == torch.float32
    assert 0 <= values.min() and values.max() < 1
    for lane in values.T:
        assert lane.mean() == pytest.approx(1 / 2, abs=0.01)
        assert lane.var() == pytest.approx(1 / 12, abs=0.002)
        assert chi_square(torch.histc(lane, 100, 0, 1)) < 160  # 99 degrees: p < 1e-4


def test_pairs_of_draws_and_of_neighbours_fill_the_square_evenly() -> None:
    values = draws_of()
    for one, other in ((values[:, 0], values[:, 1]), (values[:-1, 2], values[1:, 2])):
        cells = (one * 10).long() * 10 + (other * 10).long()
        assert chi_square(torch.bincount(cells, minlength=100).float()) < 160


def chi_square(counts: Tensor) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_values_hardly_repeat() -> None:
    values = draws_of(draws=1).flatten()
    expected = COUNT**2 / 2 / 2**24  # birthdays among 2**24 values
    assert COUNT - len(values.unique()) < 4 * expected


def test_the_mixer_is_lowbias32() -> None:
    def reference(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    inputs = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xDEADBEEF, 0xFFFFFFFF]
    assert _mix(torch.tensor(inputs)).tolist() == [reference(x) for x in inputs]


PARTS = st.lists(st.one_of(st.integers(), st.text("abc/", max_size=5)), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(PARTS)
def test_a_derived_seed_repeats_itself_and_fits_torch(parts: list[object]) -> None:
    seed = derived_seed(*parts)
    assert seed == derived_seed(*parts)
    assert 0 <= seed < 2**62
    assert torch.Generator().manual_seed(seed).initial_seed() == seed


@settings(deadline=None, max_examples=60)
@given(PARTS, st.data())
def test_a_derived_seed_depends_on_each_part(parts: list[object], data: st.DataObject) -> None:
    changed = list(parts)
    changed[data.draw(st.integers(0, len(parts) - 1))] = "another"
    assert derived_seed(*changed) != derived_seed(*parts)
    assert derived_seed(*parts, 0) != derived_seed(*parts)


def test_a_derived_seed_depends_on_order_and_on_where_parts_end() -> None:
    seeds = [derived_seed(*parts) for parts in (("a", 1, 2), ("a", 2, 1), ("a", 12), ("a1", 2))]
    assert len(set(seeds)) == len(seeds)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 300), st.integers(), st.integers())
def test_a_permutation_has_everything_once_and_is_counted(count: int, seed: int, at: int) -> None:
    order = permutation(count, "order", seed, at)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, permutation(count, "order", seed, at))


def test_permutations_differ_by_each_part_and_ignore_the_global_stream() -> None:
    orders = [permutation(50, *parts) for parts in ((0, 1), (0, 2), (1, 1), (1, 0))]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    torch.manual_seed(7)
    assert torch.equal(permutation(50, 0, 1), orders[0])


def test_every_place_is_equally_likely() -> None:
    first = torch.stack([permutation(10, "place", seed)[0] for seed in range(2000)])
    assert chi_square(torch.bincount(first, minlength=10).float()) < 34  # 9 degrees: p < 1e-4
