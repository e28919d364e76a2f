"""Permutations without torch are torch's own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.numerics import randomness
from trainables.numerics.seeds import permutation


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 700), st.integers(), st.text(max_size=5))
def test_a_permutation_is_that_of_torch(count: int, seed: int, name: str) -> None:
    expected = randomness.permutation(count, "split", seed, name).numpy()
    found = permutation(count, "split", seed, name)
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("count", [100_000])
def test_a_long_permutation_is_that_of_torch(count: int) -> None:
    assert np.array_equal(permutation(count, 7), randomness.permutation(count, 7).numpy())
