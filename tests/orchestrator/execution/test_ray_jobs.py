"""What is read from the output of a driver."""

import pytest

from orchestrator.execution.ray_jobs import errors_in

_TRACEBACK = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module y\n"


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ("", []),
        ("2026-01-01 A seed 0: finished\n", []),
        ("2026 x\nerror: too full\n2026 y\n", ["too full"]),
        ("error: s: 2 errors\n  a: b\n  c: d\n2026 x\n  e\n", ["s: 2 errors\n  a: b\n  c: d"]),
        (_TRACEBACK, ["ModuleNotFoundError: No module y"]),
        (f"{_TRACEBACK}2026-01-01 A seed 0: failed\n", []),  # of one Run
        (f"{_TRACEBACK}error: in words\n", ["in words"]),
    ],
)
def test_errors_are_found_among_other_lines(output: str, errors: list[str]) -> None:
    assert errors_in(output) == errors
