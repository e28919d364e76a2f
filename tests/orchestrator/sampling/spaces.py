"""Samplers over the space of a small classification."""

from orchestrator.config.search_schema import Search, number_type
from orchestrator.sampling.contract import Sampler, SearchSpace
from orchestrator.sampling.registry import SAMPLERS
from trainables.tasks.classify import ClassifyConfig

SPACE = {
    "lr": {"log": [1e-4, 1.0]},
    "momentum": {"uniform": [0, 0.95]},
    "batch_size": {"log": [16, 256]},
    "train": {"choice": ["late", "full"]},
}
SMALL_SPACE = {"train": {"choice": ["late", "full"]}, "batch_size": {"choice": [32, 64, 128]}}


def make_space(space: object = SPACE) -> SearchSpace:
    search = Search.model_validate({"trials": 50, "space": space})
    return SearchSpace(
        search.space, {name: number_type(ClassifyConfig, name) for name in search.space}
    )


def make_sampler(name: str = "random", seed: int = 0, space: object = SPACE) -> Sampler:
    return SAMPLERS[name](make_space(space), "max", seed)
