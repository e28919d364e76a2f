"""The optimizers a configuration may name."""

import torch
from torch import nn

from trainables.config import TrainableConfig


def build_optimizer(config: TrainableConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW (arXiv:1711.05101), over the parameters that learn."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learnt, lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        learnt, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
