"""BatchNorm over the batches of all ranks, on any device.

torch.nn.SyncBatchNorm needs a GPU; this one runs under gloo too, so that the number of workers
never changes what a Run learns.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _SumOverRanks(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum of the ranks' gradients."""

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


class RankBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch (arXiv:1502.03167)."""

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W); ranks may hold different B, also 0."""
        if not self.training:
            return super().forward(images)
        wide, channels = images.float(), self.num_features
        seen = wide.new_tensor([float(wide.numel() // wide.shape[1])])
        total = _sum_over_ranks(torch.cat([wide.sum((0, 2, 3)), seen]))
        count, mean = total[-1], total[:channels] / total[-1]
        centred = wide - mean.view(1, -1, 1, 1)  # E[x²] - E[x]² would cancel for large means
        variance = _sum_over_ranks(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1.0))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        result = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return result.to(images.dtype)

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


def synchronise(model: nn.Module, device: torch.device) -> nn.Module:
    """The same model with every BatchNorm2d over all ranks; parameters and names are kept."""
    if device.type == "cuda":
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return cast(nn.Module, converted)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = RankBatchNorm2d  # same state, other forward pass
    return model
