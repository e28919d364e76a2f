"""The optimizers a configuration may name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.config import TrainableConfig


def build_optimizer(config: TrainableConfig, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, AdamW (arXiv:1711.05101) or LARS, over the parameters that learn."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learnt, lr=config.lr, weight_decay=config.weight_decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            learnt, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
    # biases and BatchNorm's parameters are neither decayed nor adapted (arXiv:2006.07733, 3.3)
    flat = [parameter for parameter in learnt if parameter.ndim == 1]
    deep = [parameter for parameter in learnt if parameter.ndim > 1]
    groups: list[dict[str, Any]] = [
        {"params": deep, "weight_decay": config.weight_decay, "trust": 1e-3}
    ]
    groups.append({"params": flat, "weight_decay": 0.0, "trust": None})
    return Lars(groups, lr=config.lr, momentum=config.momentum)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same learning rate for all parameters, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_hyperparameters(optimizer: torch.optim.Optimizer, config: TrainableConfig) -> None:
    """Momentum and weight decay as configured, from the next step on; what the optimizer remembers
    stays. Groups that are not decayed (LARS) stay so."""
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = config.momentum
        if group.get("trust", 1.0) is not None:
            group["weight_decay"] = config.weight_decay


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (arXiv:1708.03888): every tensor's step is scaled by
    trust * |w| / |g + decay * w|, then SGD with momentum. A group with trust None is not scaled.
    """

    def __init__(self, groups: Any, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        gradient = weight.grad.add(weight, alpha=group["weight_decay"])  # type: ignore[union-attr]
        if group["trust"] is not None:
            size, slope = weight.norm(), gradient.norm()
            scale = torch.where((size > 0) & (slope > 0), group["trust"] * size / slope, 1.0)
            gradient = gradient * scale
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        weight.sub_(state["momentum_buffer"], alpha=group["lr"])
