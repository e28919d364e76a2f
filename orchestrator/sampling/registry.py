"""The samplers that `algorithm:` of a search may name.

To add one: write its file, add one line here.
"""

from orchestrator.sampling.contract import Sampler
from orchestrator.sampling.grid_search import GridSearch
from orchestrator.sampling.random_search import RandomSearch
from orchestrator.sampling.tpe import TPE

SAMPLERS: dict[str, type[Sampler]] = {
    "random": RandomSearch,
    "grid": GridSearch,
    "optuna": TPE,
}
