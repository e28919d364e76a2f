"""Polynomial decay to zero, usual in semantic segmentation (arXiv:1506.04579, section 3.1)."""

import math

from trainables.schedules.contract import Settings, fraction_done

_POWER = 0.9


def poly(progress: float, settings: Settings) -> float:
    """(1 - fraction done) to the power of 0.9."""
    return math.pow(1.0 - fraction_done(progress, settings), _POWER)
