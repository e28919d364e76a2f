"""Every schedule: a factor in [0, 1] of the learning rate, and the right one at known places."""

import math
from types import SimpleNamespace

import pytest

from trainables.schedules.registry import SCHEDULES

SETTINGS = SimpleNamespace(epochs=12, warmup_epochs=2.0, step_epochs=4, step_gamma=0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_never_leaves_zero_to_one_and_never_rises(name: str) -> None:
    factors = [SCHEDULES[name](2 + step / 10, SETTINGS) for step in range(101)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize(
    ("name", "progress", "factor"),
    [
        ("constant", 11.9, 1.0),
        ("cosine", 2.0, 1.0),
        ("cosine", 7.0, 0.5),
        ("cosine", 12.0, 0.0),
        ("step", 3.9, 1.0),
        ("step", 8.0, 0.01),
        ("poly", 7.0, 0.5**0.9),
    ],
)
def test_known_values(name: str, progress: float, factor: float) -> None:
    assert math.isclose(SCHEDULES[name](progress, SETTINGS), factor, abs_tol=1e-12)
