"""Adam with decoupled weight decay (arXiv:1711.05101)."""

from collections.abc import Sequence

import torch
from torch import nn

from trainables.optimizers.contract import Settings


def adamw(parameters: Sequence[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """torch's AdamW; every parameter is decayed, `momentum` is not used."""
    return torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
