"""Stochastic gradient descent with momentum."""

from collections.abc import Sequence

import torch
from torch import nn

from trainables.optimizers.contract import Settings


def sgd(parameters: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """torch's SGD; every parameter is decayed."""
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
