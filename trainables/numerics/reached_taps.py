"""Keeps what a convolution's kernel learns free of numbers that nobody has computed.

Where an image is smaller than a kernel reaches, some taps (places of the kernel) see padding alone:
their gradient is 0. On CPUs oneDNN 3 (torch 2.11 to 2.14) leaves memory as it was there, in
bfloat16: a kernel of 7 x 7 on 2 x 2 pixels, or one of 3 x 3 with stride 2 on a single pixel, got
gradients up to 1e38. Such weights change nothing for images of that size, and everything for larger
ones.
"""

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn


class _Masked(torch.autograd.Function):
    """Gives weights as they are, and gradients of taps that were reached alone."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, unreached: Tensor) -> Tensor:
        ctx.save_for_backward(unreached)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (unreached,) = ctx.saved_tensors
        return gradients[0].masked_fill(unreached, 0), None


class ReachedConv2d(nn.Conv2d):
    """A convolution whose taps learn nothing where they see nothing but padding."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns = weight.requires_grad and torch.is_grad_enabled()
        if learns and not isinstance(self.padding, str):
            sides = (int(input.shape[-2]), int(input.shape[-1]))
            places = self.kernel_size, self.stride, self.padding, self.dilation
            unreached = _unreached(sides, *places)
            if unreached is not None:
                weight = _Masked.apply(weight, unreached)
        return cast(Tensor, super()._conv_forward(input, weight, bias))

    def _get_name(self) -> str:
        return "Conv2d"  # it is printed as what it was


def guarded(model: nn.Module, autocast: torch.dtype | None) -> nn.Module:
    """Make torch's own convolutions of a model on a CPU such ones, and return it. Weights and names
    are kept. autocast: format of the convolutions; in None, float32, they are right already."""
    if autocast is None:
        return model
    for module in model.modules():
        if type(module) is nn.Conv2d and module.weight.device.type == "cpu":
            module.__class__ = ReachedConv2d  # same state, other gradient
    return model


Pair = tuple[int, ...]


@lru_cache(maxsize=1024)
def _unreached(
    sides: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Tensor | None:
    """Return which taps see padding alone, (height, width) bool of the kernel; None where all see
    more. sides: of the images, px."""
    seen = [_reached(*each) for each in zip(sides, kernel, stride, padding, dilation, strict=True)]
    unreached = ~(torch.tensor(seen[0])[:, None] & torch.tensor(seen[1])[None, :])
    return unreached if bool(unreached.any()) else None


def _reached(side: int, kernel: int, stride: int, padding: int, dilation: int) -> list[bool]:
    """Return for each tap along one side of the kernel whether it sees a pixel at some place."""
    places = (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    return [
        any(0 <= place * stride - padding + tap * dilation < side for place in range(places))
        for tap in range(kernel)
    ]
