"""The same learning rate in all epochs."""

from trainables.schedules.contract import Settings


def constant(progress: float, settings: Settings) -> float:
    """Always 1."""
    return 1.0
