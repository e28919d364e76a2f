"""A grid is drawn point by point."""

from tests.orchestrator.sampling.spaces import make_sampler

FEW = {"train": {"choice": ["late", "full"]}, "batch_size": {"choice": [32, 64]}}


def test_a_grid_is_drawn_in_order() -> None:
    grid = make_sampler("grid", space=FEW)
    assert grid.draw(1) == {"train": "late", "batch_size": 64}
    assert grid.draw(2) == {"train": "full", "batch_size": 32}
    assert grid.draw(4) is None
