"""A dimension rounds what is drawn, and knows its ends."""

import pytest

from orchestrator.sampling.dimension import Dimension, typed


@pytest.mark.parametrize(
    ("value", "whole", "rounded"),
    [(0.123456, False, 0.1235), (1e-9, False, 0.01), (3.7, True, 3), (0.99999, False, 0.99)],
)
def test_a_drawn_number_has_four_digits_and_stays_in_range(
    value: float, whole: bool, rounded: float
) -> None:
    result = Dimension(uniform=[0.01, 0.99]).rounded(value, whole)
    assert (result, type(result)) == (rounded, int if whole else float)


def test_ends_are_values_of_the_parameter() -> None:
    assert Dimension(log=[2.0, 64.0]).ends_of(int) == [2, 64]
    assert Dimension(choice=[3, 1]).ends_of(int) == [3, 1]
    assert Dimension(uniform=[0.0, 0.5]).ends_of(float) == [0.0, 0.5]
    assert [typed(float, 1), typed(int, 1), typed(None, "late")] == [1.0, 1, "late"]
