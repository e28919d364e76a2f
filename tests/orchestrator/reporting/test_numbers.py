"""Times as people say them."""

import pytest

from orchestrator.reporting.numbers import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (99.4, "99 s"),
        (100.0, "2 min"),
        (5_930.0, "99 min"),
        (6_000.0, "1 h 40 min"),
        (7_200.0, "2 h"),
        (90_000.0, "25 h"),
    ],
)
def test_a_time_is_rounded_to_what_matters(seconds: float, text: str) -> None:
    assert duration(seconds) == text
