"""Colour augmentation of whole batches on the training device, each image with its own parameters.

Images are (B, 3, H, W) float in [0, 1], and so is what comes back. The single operations equal
torchvision's functional ones on each image; drawing and applying them is done for all at once.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.numerics.precision import constant, exact

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale


def grey(images: Tensor) -> Tensor:
    """Luma (B, 1, H, W)."""
    weights = constant(_LUMA, images.device).to(images.dtype)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """factors: (B,), 0 is black, 1 changes nothing."""
    return (images * factors.view(-1, 1, 1, 1)).clamp(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """factors: (B,), 0 is the image's mean grey, 1 changes nothing."""
    mean = grey(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factors.view(-1, 1, 1, 1)).clamp(0, 1)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """factors: (B,), 0 is grey, 1 changes nothing."""
    return torch.lerp(grey(images).expand_as(images), images, factors.view(-1, 1, 1, 1)).clamp(0, 1)


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Turn the hue of HSV by shifts (B,), in turns: 0 and 1 change nothing."""
    top, bottom = images.amax(1), images.amin(1)
    spread = top - bottom
    red, green, blue = ((top - channel) for channel in images.unbind(1))
    safe = spread.clamp(min=1e-12)
    turns = torch.where(
        images[:, 0] == top,
        blue - green,
        torch.where(images[:, 1] == top, 2 * safe + red - blue, 4 * safe + green - red),
    ) / (6 * safe)
    turns = turns + shifts.view(-1, 1, 1)
    # each channel is the top less the spread times a trapezoid of the hue (Smith, 1978)
    offsets = constant((5.0, 3.0, 1.0), images.device).view(1, 3, 1, 1)
    place = (turns.unsqueeze(1) * 6 + offsets).remainder(6)
    weight = torch.minimum(place, 4 - place).clamp(0, 1)
    return top.unsqueeze(1) - spread.unsqueeze(1) * weight


_OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    brightness,
    contrast,
    saturation,
    hue,
)
JITTER_DRAWS = 9  # four strengths, four for the order, one for whether


def jitter(
    images: Tensor, draws: Tensor, strengths: tuple[float, float, float, float], chance: float
) -> Tensor:
    """torchvision's ColorJitter: brightness, contrast, saturation and hue in an order of their own
    for every image, with probability `chance`.

    strengths: factors are drawn from [1 - s, 1 + s], the shift of the hue from [-s, s]. draws:
    (B, 9).
    """
    order = draws[:, 4:8].argsort(1)
    wanted = draws[:, 8] < chance
    for place in range(4):
        changed = images.clone()
        for number, operation in enumerate(_OPERATIONS):
            middle = 0.0 if operation is hue else 1.0
            values = middle + (2 * draws[:, number] - 1) * strengths[number]
            chosen = wanted & (order[:, place] == number)
            changed = _replace(changed, chosen, operation, images, values)
        images = changed
    return images


def to_grey(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Grey with probability `chance`. draws: (B, 1)."""
    return torch.where((draws[:, 0] < chance).view(-1, 1, 1, 1), grey(images), images)


def solarize(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Invert what is brighter than a half, with probability `chance`. draws: (B, 1)."""
    bright = (draws[:, 0] < chance).view(-1, 1, 1, 1) & (images >= 0.5)
    return torch.where(bright, 1 - images, images)


@exact
def blur(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Gaussian blur with probability `chance`, sigma in [0.1, 2.0] px at 224 px and in proportion
    at other sides; the kernel spans a tenth of the side (arXiv:2006.07733, appendix B).

    draws: (B, 2): whether, sigma.
    """
    sigma = (0.1 + 1.9 * draws[:, 1]) * (images.shape[-1] / 224)
    return _replace(images.clone(), draws[:, 0] < chance, _blurred, images, sigma)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    reach = max(1, width // 20)
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (steps / sigma.view(-1, 1)).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    planes = images.reshape(1, batch * channels, height, width)
    planes = F.pad(planes, (reach,) * 4, mode="reflect")
    planes = F.conv2d(planes, kernels[:, None, None, :], groups=batch * channels)
    planes = F.conv2d(planes, kernels[:, None, :, None], groups=batch * channels)
    return planes.view(batch, channels, height, width)


def _replace(
    into: Tensor,
    chosen: Tensor,
    operation: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    values: Tensor,
) -> Tensor:
    """`into` with the chosen rows replaced by operation(images, values); it may be written to. A
    CPU computes the chosen ones only; a GPU all, since to ask it how many there are would stop it.
    """
    if images.device.type != "cpu":
        return torch.where(chosen.view(-1, 1, 1, 1), operation(images, values), into)
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        into[rows] = operation(images[rows], values[rows])
    return into
