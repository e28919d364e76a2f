"""Computes BatchNorm over the batches of all ranks, on any device.

torch.nn.SyncBatchNorm needs a GPU; this one runs under gloo too, so that the number of workers
never changes what a Run learns.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """Sums a tensor over ranks; its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum_over_ranks(value: Tensor) -> Tensor:
    return cast(Tensor, _SumOverRanks.apply(value))


def _sum_of_samples(values: Tensor) -> Tensor:
    """Sum (B, C, ...) over all but channels. Returns (C,) float64.

    The sum within a sample is the same on any rank, and samples are added in double precision.
    Otherwise channels that hardly vary would depend on the number of ranks.
    """
    per_sample = values.sum(tuple(range(2, values.dim()))) if values.dim() > 2 else values
    return per_sample.double().sum(0)


class _OverRanks(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose training statistics are those of the global batch (arXiv:1502.03167)."""

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, C, ...); ranks may hold different B, also 0."""
        if not self.training:
            return super().forward(values)
        wide, channels = values.float(), self.num_features
        shape = [1, channels, *[1] * (wide.dim() - 2)]
        seen = torch.tensor([float(wide.numel() // channels)], dtype=torch.float64)
        total = _sum_over_ranks(torch.cat([_sum_of_samples(wide), seen]))
        count, mean = total[-1], total[:channels] / total[-1]
        centred = wide - mean.float().view(shape)  # E[x²] - E[x]² would cancel for large means
        variance = _sum_over_ranks(_sum_of_samples(centred.square())) / count
        unbiased = variance.detach() * count / (count - 1).clamp(min=1.0)
        self._follow(mean.detach().float(), unbiased.float())
        scale = self.weight * torch.rsqrt(variance + self.eps).float()
        result = centred * scale.view(shape) + self.bias.view(shape)
        return result.to(values.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased, momentum)


class RankBatchNorm1d(_OverRanks, nn.BatchNorm1d):
    """Over (B, C) or (B, C, L)."""


class RankBatchNorm2d(_OverRanks, nn.BatchNorm2d):
    """Over (B, C, H, W)."""


_OVER_RANKS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: RankBatchNorm1d,
    nn.BatchNorm2d: RankBatchNorm2d,
}


def synchronize(model: nn.Module, device: torch.device) -> nn.Module:
    """Make every BatchNorm of a model one over all ranks. Parameters and names are kept.

    Returns the model; on a GPU it has torch's own SyncBatchNorm.
    """
    if device.type == "cuda":
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return cast(nn.Module, converted)
    for module in model.modules():
        if type(module) in _OVER_RANKS:  # same state, other forward pass
            module.__class__ = _OVER_RANKS[type(module)]
    return model
