"""What is drawn lies in its space, is counted and not streamed, and learns from what is told."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.search_schema import Search, number_type
from orchestrator.tuning.sampler import Sampler
from trainables.tasks.classify import ClassifyConfig

SPACE = {
    "lr": {"log": [1e-4, 1.0]},
    "momentum": {"uniform": [0, 0.95]},
    "batch_size": {"log": [16, 256]},
    "train": {"choice": ["late", "full"]},
}


def suggestions(seed: int = 0, **changes: object) -> Sampler:
    form = {"trials": 50, "space": SPACE, "algorithm": "random", **changes}
    search = Search.model_validate(form)
    kinds = {name: number_type(ClassifyConfig, name) for name in search.space}
    return Sampler(search, kinds, seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.sampled_from(["random", "optuna"]))
def test_a_draw_lies_in_its_space(seed: int, index: int, algorithm: str) -> None:
    values = suggestions(seed, algorithm=algorithm).draw(index)
    assert values is not None
    assert 1e-4 <= values["lr"] <= 1.0
    assert 0 <= values["momentum"] <= 0.95
    assert isinstance(values["batch_size"], int)
    assert 16 <= values["batch_size"] <= 256
    assert values["train"] in ("late", "full")
    assert float(f"{values['lr']:.4g}") == values["lr"]


def test_a_draw_depends_on_its_number_and_not_on_those_before_it() -> None:
    whole = suggestions()
    drawn = [whole.draw(index) for index in range(6)]
    late = suggestions()
    for values in drawn[:4]:
        assert values is not None
        late.known(values)
    assert [late.draw(4), late.draw(5)] == drawn[4:]
    assert suggestions(1).draw(0) != drawn[0]


def test_nothing_is_tried_twice_and_a_small_space_ends() -> None:
    few = {"train": {"choice": ["late", "full"]}, "batch_size": {"choice": [32, 64, 128]}}
    for algorithm in ("random", "optuna"):
        small = suggestions(space=few, algorithm=algorithm)
        drawn = [small.draw(index) for index in range(7)]
        assert drawn[6] is None
        assert len({tuple(values.items()) for values in drawn[:6] if values}) == 6


def test_a_grid_is_walked_in_order() -> None:
    few = {"train": {"choice": ["late", "full"]}, "batch_size": {"choice": [32, 64]}}
    grid = suggestions(space=few, algorithm="grid", trials=None)
    assert grid.draw(1) == {"train": "late", "batch_size": 64}
    assert grid.draw(2) == {"train": "full", "batch_size": 32}
    assert grid.draw(4) is None


def test_optuna_draws_where_it_was_good_and_random_does_not() -> None:
    def near(algorithm: str) -> float:
        """Mean distance of late draws from the best learning rate, in decades."""
        search = suggestions(space={"lr": {"log": [1e-4, 1.0]}}, algorithm=algorithm)
        distances = []
        for index in range(40):
            values = search.draw(index)
            assert values is not None
            distance = abs(math.log10(values["lr"]) + 1)
            search.tell(values, -distance)
            distances.append(distance)
        return sum(distances[20:]) / 20

    assert near("optuna") < 0.7 * near("random")


def test_importance_names_the_parameter_that_matters() -> None:
    search = suggestions()
    assert search.importance() == {}
    for index in range(30):
        values = search.draw(index)
        assert values is not None
        search.tell(values, -abs(math.log10(values["lr"]) + 1) + 0.01 * values["momentum"])
    shares = search.importance()
    assert shares["lr"] > 0.8
    assert abs(sum(shares.values()) - 1) < 1e-6
