"""Defines what a schedule is: a function of progress and settings."""

from collections.abc import Callable
from typing import Protocol


class Settings(Protocol):
    """The part of a training's configuration that schedules read."""

    @property
    def epochs(self) -> int: ...
    @property
    def warmup_epochs(self) -> float: ...
    @property
    def step_epochs(self) -> int: ...
    @property
    def step_gamma(self) -> float: ...


# Progress in epochs, a real number in [warmup_epochs, epochs] → factor in [0, 1] of `lr`.
Schedule = Callable[[float, Settings], float]


def fraction_done(progress: float, settings: Settings) -> float:
    """Return the share of the epochs after warm-up that is done, in [0, 1]."""
    after_warmup = settings.epochs - settings.warmup_epochs
    return min(1.0, (progress - settings.warmup_epochs) / after_warmup)
