"""TPE learns from the figures that it is told."""

import math

from tests.orchestrator.sampling.spaces import make_sampler


def test_tpe_draws_near_good_figures_and_random_search_does_not() -> None:
    def distance(name: str) -> float:
        """Mean distance of late draws from the best learning rate, in decades."""
        sampler = make_sampler(name, space={"lr": {"log": [1e-4, 1.0]}})
        distances = []
        for index in range(40):
            values = sampler.draw(index)
            assert values is not None
            decades = abs(math.log10(values["lr"]) + 1)
            sampler.tell(values, -decades)
            distances.append(decades)
        return sum(distances[20:]) / 20

    assert distance("optuna") < 0.7 * distance("random")
