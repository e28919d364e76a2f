"""Draw every point of a grid once."""

from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import ClassVar

from orchestrator.sampling.contract import Sampler, Values
from orchestrator.sampling.dimension import Dimension


class GridSearch(Sampler):
    """Draws the points of a space of choices in order, the last parameter changing fastest."""

    EXHAUSTIVE: ClassVar[bool] = True

    def draw(self, index: int) -> Values | None:
        """Return point `index` of the grid; None behind the last one."""
        return next(islice(points(self.space.dimensions), index, None), None)

    def propose(self, index: int, repeat: int) -> Values:
        """Never called: the points of a grid differ."""
        raise NotImplementedError("a grid draws each of its points once")


def points(dimensions: Mapping[str, Dimension]) -> Iterator[Values]:
    """Yield the points of a space of choices."""
    for point in product(*(dimension.choice or () for dimension in dimensions.values())):
        yield dict(zip(dimensions, point, strict=True))
