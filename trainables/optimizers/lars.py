"""Layer-wise adaptive rate scaling (arXiv:1708.03888), for large batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.optimizers.contract import Group, Settings

_TRUST = 1e-3  # of arXiv:2006.07733, 3.3


def lars(groups: Sequence[Group], settings: Settings) -> torch.optim.Optimizer:
    """Return LARS with momentum. Biases and BatchNorm's parameters are neither decayed nor scaled
    (arXiv:2006.07733, 3.3), whatever their group says."""
    parts: list[Group] = []
    for group in groups:
        matrices = [parameter for parameter in group["params"] if parameter.ndim > 1]
        vectors = [parameter for parameter in group["params"] if parameter.ndim <= 1]
        decay = settings.weight_decay if group.get("decayed", True) else 0.0
        scaled = {"params": matrices, "weight_decay": decay, "trust": _TRUST}
        still = {"params": vectors, "weight_decay": 0.0, "trust": None, "decayed": False}
        parts += [{**group, **part} for part in (scaled, still) if part["params"]]
    return Lars(parts, lr=settings.lr, momentum=settings.momentum)


class Lars(torch.optim.Optimizer):
    """Scales every tensor's step by trust * |w| / |g + decay * w|, then SGD with momentum. A group
    with trust None is not scaled."""

    def __init__(self, groups: Any, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
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
