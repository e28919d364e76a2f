"""Importance names the parameter that decides the figure."""

import math

from orchestrator.sampling.importance import importance
from tests.orchestrator.sampling.spaces import make_sampler, make_space


def test_importance_names_the_parameter_that_matters() -> None:
    sampler = make_sampler()
    assert importance(make_space(), "max", 0, []) == {}
    told = []
    for index in range(30):
        values = sampler.draw(index)
        assert values is not None
        figure = -abs(math.log10(values["lr"]) + 1) + 0.01 * values["momentum"]
        told.append((values, figure))
    shares = importance(make_space(), "max", 0, told)
    assert shares["lr"] > 0.8
    assert abs(sum(shares.values()) - 1) < 1e-6


def test_few_trials_and_equal_figures_have_no_importance() -> None:
    sampler = make_sampler()
    told = [(sampler.draw(index) or {}, float(index)) for index in range(11)]
    assert importance(make_space(), "max", 0, told) == {}  # three a parameter make twelve
    assert importance(make_space(), "max", 0, [(values, 0.5) for values, _ in told * 2]) == {}
