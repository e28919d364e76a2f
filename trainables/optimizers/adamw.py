"""Adam with decoupled weight decay (arXiv:1711.05101)."""

from collections.abc import Sequence

import torch

from trainables.optimizers.contract import Group, Settings


def adamw(groups: Sequence[Group], settings: Settings) -> torch.optim.Optimizer:
    """Return torch's AdamW; `momentum` is not used."""
    return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
