"""Every sampler stays in its space, repeats nothing, and draws the same after an interruption."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.sampling.registry import SAMPLERS
from tests.orchestrator.sampling.spaces import SMALL_SPACE, make_sampler

OVER_RANGES = sorted(name for name, sampler in SAMPLERS.items() if not sampler.EXHAUSTIVE)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.sampled_from(OVER_RANGES))
def test_a_draw_lies_in_its_space(seed: int, index: int, name: str) -> None:
    values = make_sampler(name, seed).draw(index)
    assert values is not None
    assert 1e-4 <= values["lr"] <= 1.0
    assert 0 <= values["momentum"] <= 0.95
    assert isinstance(values["batch_size"], int)
    assert 16 <= values["batch_size"] <= 256
    assert values["train"] in ("late", "full")
    assert float(f"{values['lr']:.4g}") == values["lr"]


@pytest.mark.parametrize("name", OVER_RANGES)
def test_a_draw_depends_on_its_index_and_not_on_earlier_draws(name: str) -> None:
    whole = make_sampler(name)
    drawn = [whole.draw(index) for index in range(6)]
    resumed = make_sampler(name)
    for values in drawn[:4]:
        assert values is not None
        resumed.add_drawn(values)
    assert [resumed.draw(4), resumed.draw(5)] == drawn[4:]
    assert make_sampler(name, seed=1).draw(0) != drawn[0]


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_nothing_is_drawn_twice_and_a_small_space_ends(name: str) -> None:
    sampler = make_sampler(name, space=SMALL_SPACE)
    drawn = [sampler.draw(index) for index in range(7)]
    assert drawn[6] is None
    assert len({tuple(values.items()) for values in drawn[:6] if values}) == 6


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_takes_figures(name: str) -> None:
    sampler = make_sampler(name, space=SMALL_SPACE)
    values = sampler.draw(0)
    assert values is not None
    sampler.tell(values, 0.5)
    assert sampler.draw(1) not in (None, values)


@pytest.mark.parametrize("name", ["random", "optuna"])
def test_first_draws_of_a_seed_stay_what_they_were(name: str) -> None:
    """A stored search continues with these draws: a sampler that draws others loses its trials."""
    wanted = {"lr": 0.0002119, "momentum": 0.7705, "batch_size": 25, "train": "full"}
    assert make_sampler(name).draw(3) == wanted


def test_reading_a_study_does_not_import_optuna(tmp_path: Path) -> None:
    code = "import orchestrator.config.study_loader, sys; print('optuna' in sys.modules)"
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
