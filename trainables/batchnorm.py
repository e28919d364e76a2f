"""BatchNorm over the batches of all ranks, on any device.

torch.nn.SyncBatchNorm needs a GPU; this one runs under gloo too, so that the number of workers
never changes what a Run learns.
"""

from typing import cast

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_functional
from torch import Tensor, nn


class RankBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics are those of the global batch (arXiv:1502.03167)."""

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, C, H, W); ranks may hold different B, also 0."""
        if not self.training:
            return super().forward(images)
        wide = images.float()
        local = torch.cat(
            [
                wide.sum((0, 2, 3)),
                wide.square().sum((0, 2, 3)),
                wide.new_tensor([float(wide.numel() // wide.shape[1])]),
            ]
        )
        total: Tensor = dist_functional.all_reduce(local, op=dist.ReduceOp.SUM)  # type: ignore[no-untyped-call]
        count, channels = total[-1], self.num_features
        mean = total[:channels] / count
        variance = (total[channels:-1] / count - mean.square()).clamp(min=0.0)
        self._follow(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1.0))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)).to(images.dtype)

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
