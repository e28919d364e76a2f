"""Keeps what a convolution's kernel learns free of numbers that nobody has computed.

Where an image is smaller than a kernel reaches, some taps (places of the kernel) see padding alone:
their gradient is 0. On CPUs oneDNN 3 (torch 2.11 to 2.14) leaves memory as it was there, in
bfloat16: a kernel of 7 x 7 on 2 x 2 pixels, or one of 3 x 3 with stride 2 on a single pixel, got
gradients up to 1e38. Such weights change nothing for images of that size, and everything for larger
ones. Not guarded are nn.Conv3d and nn.ConvTranspose2d with padding, which no network here has.
"""

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

Pair = tuple[int, ...]  # of each side of an image, or of a kernel


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


class _Reached(nn.modules.conv._ConvNd):
    """Convolves, and lets no tap learn that sees nothing but padding with zeros."""

    def _conv_forward(self, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns = weight.requires_grad and torch.is_grad_enabled()
        if learns and self.padding_mode == "zeros":
            sides = tuple(map(int, images.shape[-len(self.kernel_size) :]))
            kernel, dilation = self.kernel_size, self.dilation
            around = self.padding if isinstance(self.padding, str) else tuple(self.padding)
            unreached = _unreached(sides, kernel, self.stride, around, dilation)
            if unreached is not None:
                weight = _Masked.apply(weight, unreached)
        return cast(Tensor, cast(Any, super())._conv_forward(images, weight, bias))

    def _get_name(self) -> str:
        return type(self).__bases__[1].__name__  # it is printed as what it was


class ReachedConv1d(_Reached, nn.Conv1d):
    """Convolves (B, C, L)."""


class ReachedConv2d(_Reached, nn.Conv2d):
    """Convolves (B, C, H, W)."""


_REACHED: dict[type[nn.Module], type[_Reached]] = {
    nn.Conv1d: ReachedConv1d,
    nn.Conv2d: ReachedConv2d,
}


def guarded(model: nn.Module, autocast: torch.dtype | None) -> nn.Module:
    """Make torch's own convolutions of a model on a CPU such ones, and return it. Weights and names
    are kept. autocast: format of the convolutions; in None, float32, they are right already."""
    if autocast is None:
        return model
    for module in model.modules():
        if type(module) in _REACHED and cast(Any, module).weight.device.type == "cpu":
            module.__class__ = _REACHED[type(module)]  # same state, other gradient
    return model


@lru_cache(maxsize=1024)
def _unreached(
    sides: Pair, kernel: Pair, stride: Pair, padding: Pair | str, dilation: Pair
) -> Tensor | None:
    """Return which taps see padding alone, bool of the kernel's shape; None where all see more.
    sides: of the images, px; padding: also `same` or `valid`, as torch has them."""
    unreached = torch.zeros(kernel, dtype=torch.bool)
    for axis, side in enumerate(sides):
        spread = dilation[axis] * (kernel[axis] - 1)  # px from the first tap to the last one
        if isinstance(padding, str):
            whole = spread if padding == "same" else 0
            before = whole // 2
        else:
            before, whole = padding[axis], 2 * padding[axis]
        places = [place * stride[axis] - before
                  for place in range((side + whole - spread - 1) // stride[axis] + 1)]  # fmt: skip
        for tap in range(kernel[axis]):
            at = tap * dilation[axis]
            if not any(0 <= place + at < side for place in places):
                unreached.select(axis, tap).fill_(True)
    return unreached if bool(unreached.any()) else None
