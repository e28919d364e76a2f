"""Two rounds of chaos; more by hand, as tests/chaos.py says."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_rounds_of_chaos_lose_nothing():
    rounds = ["--rounds", "2", "--seed", "1", "--workers", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *rounds],
        cwd=Path(__file__).parents[2],
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rounds, 0 losses" in done.stdout
