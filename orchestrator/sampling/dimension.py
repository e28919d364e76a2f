"""Describe which values of one parameter a search tries."""

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from trainables.config import Config

Kind = type[int] | type[float] | None  # the type of number that a parameter takes; None: no number
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]
_DIGITS = 4  # significant digits of a drawn number, so that what is logged is what was trained


class Dimension(Config):
    """Values of one parameter: `{log: [1.0e-4, 1.0]}`, `{uniform: [0.0, 0.9]}` or
    `{choice: [late, full]}`. Both ranges draw whole numbers for an integer parameter."""

    log: Bounds | None = Field(None, description="[low, high], drawn evenly on a logarithmic scale")
    uniform: Bounds | None = Field(None, description="[low, high], drawn evenly")
    choice: Annotated[list[Any], Field(min_length=1)] | None = Field(
        None, description="a list of values"
    )

    @model_validator(mode="after")
    def _check(self) -> "Dimension":
        given = [name for name in ("log", "uniform", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("needs one of `log: [low, high]`, `uniform: [low, high]`, `choice:`")
        if self.choice is not None:
            if any(self.choice.count(value) > 1 for value in self.choice):
                raise ValueError(f"lists a value twice: {self.choice!r}")
            return self
        low, high = self.bounds
        if low >= high:
            what = "is empty" if low == high else "is reversed"
            raise ValueError(f"{given[0]} [{low:g}, {high:g}] {what}: the lower bound comes first")
        if self.log is not None and low <= 0:
            raise ValueError(f"log [{low:g}, {high:g}]: a logarithmic range must be above 0")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the lower and upper end of a range; NaN for a choice."""
        low, high = self.log or self.uniform or (math.nan, math.nan)
        return low, high

    @property
    def whole(self) -> bool:
        """Return whether both ends of a range are whole numbers, as an integer parameter needs."""
        return all(end.is_integer() for end in self.bounds)

    def ends(self) -> list[Any]:
        """Return every choice, or both ends of a range."""
        return list(self.bounds) if self.choice is None else list(self.choice)

    def ends_of(self, kind: Kind) -> list[Any]:
        """Return the same as values of a parameter of that kind."""
        return list(map(int, self.bounds)) if kind is int and self.choice is None else self.ends()

    def rounded(self, value: float, whole: bool) -> float | int:
        """Return a drawn number as it is trained: with four significant digits, in the range."""
        low, high = self.bounds
        return int(value) if whole else min(high, max(low, float(f"{value:.{_DIGITS}g}")))


def typed(kind: Kind, value: Any) -> Any:
    """Return a value as a configuration wants it: `1` of a real parameter becomes `1.0`."""
    return float(value) if kind is float and type(value) is int else value
