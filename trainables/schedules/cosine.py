"""Cosine annealing to zero, without restarts (arXiv:1608.03983)."""

import math

from trainables.schedules.contract import Settings, fraction_done


def cosine(progress: float, settings: Settings) -> float:
    """Fall from 1 to 0 along half a cosine."""
    return 0.5 * (1.0 + math.cos(math.pi * fraction_done(progress, settings)))
