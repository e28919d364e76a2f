"""Defines a quantity that is measured once per seed: its values, their mean and their spread."""

import math
import statistics
from abc import ABC, abstractmethod

from orchestrator.statistics.intervals import Interval


class Sample(ABC):
    """A quantity measured once per seed."""

    @property
    @abstractmethod
    def values(self) -> tuple[float, ...]:
        """Return one value per seed."""

    @property
    def n(self) -> int:
        """Return the number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """None without values, NaN if one of them is not finite: no seed is silently left out."""
        if not self.values:
            return None
        return statistics.mean(self.values) if all(map(math.isfinite, self.values)) else math.nan

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1 in the denominator); None where it is undefined."""
        defined = self.n > 1 and finite(self.mean) is not None
        return statistics.stdev(self.values) if defined else None

    @property
    @abstractmethod
    def interval(self) -> Interval | None:
        """Return the 95 % interval of the mean over seeds; None where it is undefined."""


def finite(value: float | None) -> float | None:
    """Return the value, or None where it is missing, infinite or not a number."""
    return value if value is not None and math.isfinite(value) else None
