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
    with trust None is not scaled. Tensors of a group are changed together: few operations."""

    def __init__(self, groups: Any, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._update(weights, group)
        return loss

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        slopes = [weight.grad for weight in weights if weight.grad is not None]
        gradients = list(torch._foreach_add(slopes, weights, alpha=group["weight_decay"]))
        if group["trust"] is not None:
            gradients = _scaled(gradients, weights, group["trust"])
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        speeds = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(speeds, group["momentum"])
        torch._foreach_add_(speeds, gradients)
        torch._foreach_sub_(weights, speeds, alpha=group["lr"])


def _scaled(gradients: list[Tensor], weights: list[Tensor], trust: float) -> list[Tensor]:
    """Scale each gradient by trust times its weight's norm over its own, where neither is 0."""
    sizes, slopes = (torch.stack(torch._foreach_norm(each)) for each in (weights, gradients))
    known = (sizes > 0) & (slopes > 0)
    scales = torch.where(known, trust * sizes / slopes, 1.0).unbind()
    return [gradient * scale for gradient, scale in zip(gradients, scales, strict=True)]
