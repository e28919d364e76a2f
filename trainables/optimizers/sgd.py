"""Stochastic gradient descent with momentum."""

from collections.abc import Sequence

import torch

from trainables.optimizers.contract import Group, Settings


def sgd(groups: Sequence[Group], settings: Settings) -> torch.optim.Optimizer:
    """Return torch's SGD."""
    return torch.optim.SGD(
        groups,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
