"""Say what a sampler is given, and what it must do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from orchestrator.sampling.dimension import Dimension, Kind
from trainables.metrics import Mode
from trainables.numerics.seeds import derived_seed

Values = dict[str, Any]  # parameter → value: one configuration
_REPEATS = 200  # proposals in a row that were all drawn before: then the space counts as used up


@dataclass(frozen=True)
class SearchSpace:
    """The parameters that a search varies."""

    dimensions: Mapping[str, Dimension]  # parameter → its values
    kinds: Mapping[str, Kind]  # parameter → the type of number that it takes


class Sampler(ABC):
    """Draws the configuration of every trial of one search.

    A draw may depend on the search's seed, the trial's index and the figures that were told,
    never on a random generator that goes on from draw to draw: a search that was interrupted must
    continue with the configurations that it would have drawn without the interruption.
    """

    # True: draws every configuration of a space of choices once; the study gives no `trials:`
    EXHAUSTIVE: ClassVar[bool] = False

    def __init__(self, space: SearchSpace, mode: Mode, seed: int) -> None:
        """mode: whether a higher figure is better (`max`) or a lower one (`min`); seed: of the
        search."""
        self.space, self.mode, self.seed = space, mode, seed
        self._drawn: list[Values] = []

    @abstractmethod
    def propose(self, index: int, repeat: int) -> Values:
        """Return a configuration for trial `index`, which counts from 0. repeat: proposals for it
        that were drawn before; another repeat must give another proposal."""

    def draw(self, index: int) -> Values | None:
        """Return the configuration of trial `index`, one that was not drawn before; None when no
        other one is left."""
        for repeat in range(_REPEATS):
            values = self.propose(index, repeat)
            if values not in self._drawn:
                self._drawn.append(values)
                return values
        return None

    def add_drawn(self, values: Values) -> None:
        """Note a configuration that was drawn before, perhaps by an earlier driver."""
        if values not in self._drawn:
            self._drawn.append(values)

    def tell(self, values: Values, figure: float) -> None:  # noqa: B027
        """Learn the figure that a configuration reached: the search's metric, finite. A sampler
        that does not learn ignores it."""

    def seed_of(self, index: int, repeat: int) -> int:
        """Return the seed of one proposal, in [0, 2**32)."""
        return derived_seed("search", self.seed, index, repeat) % 2**32
