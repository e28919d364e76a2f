"""Augments the colors of whole batches on the training device, each image with its own parameters.

Functions take and return images (B, 3, H, W) float in [0, 1]; a chance is one for all images or
(B,), one for each. The single operations equal those
of torchvision on each image, but parameters are drawn and applied for all images at once.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.numerics.precision import constant, exact

Chance = float | Tensor
_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, as torchvision's rgb_to_grayscale
_BLACK = 2.0  # deviations below the mean


def gray(images: Tensor) -> Tensor:
    """Return the luma (ITU-R BT.601), (B, 1, H, W) float in [0, 1]."""
    weights = constant(_LUMA, images.device).to(images.dtype)
    return (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Scale the brightness by factors (B,): 0 gives black, 1 changes nothing."""
    return (images * factors.view(-1, 1, 1, 1)).clamp(0, 1)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Scale the contrast by factors (B,): 0 gives the mean gray of the image, 1 changes nothing."""
    mean = gray(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean.expand_as(images), images, factors.view(-1, 1, 1, 1)).clamp(0, 1)


def saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Scale the saturation by factors (B,): 0 gives gray, 1 changes nothing."""
    return torch.lerp(gray(images).expand_as(images), images, factors.view(-1, 1, 1, 1)).clamp(0, 1)


def hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift the hue of HSV by shifts (B,), in full turns: 0 and 1 change nothing."""
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
    # channel = maximum - chroma x trapezoid of the hue (Smith, 1978)
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
_BRIGHTNESS, _CONTRAST, _HUE = 0, 1, 3  # their numbers
JITTER_DRAWS = 9  # four strengths, four for the order, one for the chance


def jitter(
    images: Tensor, draws: Tensor, strengths: tuple[float, float, float, float], chance: float
) -> Tensor:
    """Change brightness, contrast, saturation and hue as torchvision's ColorJitter does.

    strengths: factors are drawn from [1 - s, 1 + s], the shift of the hue from [-s, s]; draws:
    (B, 9) uniforms in [0, 1); chance: probability that an image is changed at all. Each image has
    its own order of the four operations.
    """
    if images.device.type != "cpu":
        return jitter_together(images, draws, strengths, chance)
    order = draws[:, 4:8].argsort(1)
    jittered = draws[:, 8] < chance
    for place in range(4):
        changed = images.clone()
        for number, operation in enumerate(_OPERATIONS):
            middle = 0.0 if operation is hue else 1.0
            values = middle + (2 * draws[:, number] - 1) * strengths[number]
            chosen = jittered & (order[:, place] == number)
            changed = replace_rows(changed, chosen, operation, images, values)
        images = changed
    return images


def jitter_together(
    images: Tensor, draws: Tensor, strengths: tuple[float, float, float, float], chance: float
) -> Tensor:
    """Do what `jitter` does, up to rounding, in few operations on all images: for a GPU.

    The hue, which takes the most, is shifted once. Before it and after it there are three places
    for the others: each is a blend with black, gray or the mean gray, or changes nothing.
    """
    given, device, calm = images, images.device, draws[:, 8] >= chance
    order = draws[:, 4:8].argsort(1)
    after = (order == _HUE).cumsum(1) > 0  # at the place of the hue, and after it
    chosen = torch.cat([order[:, :3], order[:, 1:]], 1)
    idle = torch.cat([after[:, :3], ~after[:, 1:]], 1) | calm[:, None]
    middle = constant(tuple(1 - s for s in strengths[:3]) + (1.0,), device)
    spread = constant(tuple(2 * s for s in strengths[:3]) + (0.0,), device)
    factors = torch.addcmul(middle, draws[:, :4], spread).gather(1, chosen).masked_fill(idle, 1.0)
    others = (1 - factors) * (chosen != _BRIGHTNESS)
    shifts = ((2 * draws[:, 3] - 1) * strengths[3]).masked_fill(calm, 0.0)
    contrasted = chosen == _CONTRAST
    for place in range(6):
        if place == 3:
            images = hue(images, shifts)
        other, flat, factor = (
            each[:, place].view(-1, 1, 1, 1) for each in (others, contrasted, factors)
        )
        grays = gray(images)
        grays = torch.where(flat, grays.mean((2, 3), keepdim=True), grays)
        images = torch.addcmul(images * factor, grays, other).clamp_(0, 1)
    return torch.where(calm.view(-1, 1, 1, 1), given, images)


def jitter_bands(
    images: Tensor, draws: Tensor, strengths: tuple[float, float], chance: float
) -> Tensor:
    """Change brightness and contrast of images with other channels than red, green and blue.

    images: (B, C, H, W) float, each channel with mean 0 and deviation 1 over its data set. Black is
    taken to lie two deviations below the mean, as in ImageNet's photographs. The contrast of each
    channel changes about its own mean; nothing is clipped, so the order of both does not matter.
    strengths, chance: as of `jitter`, whose draws (B, 9) these are.
    """
    light, spread = ((1 + (2 * draws[:, k] - 1) * strengths[k]).view(-1, 1, 1, 1) for k in (0, 1))
    contrasted = torch.lerp(images.mean((2, 3), keepdim=True), images, spread)
    changed = contrasted * light + (light - 1) * _BLACK
    return torch.where((draws[:, 8] < chance).view(-1, 1, 1, 1), changed, images)


def to_gray(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Make images gray with probability `chance`. draws: (B, 1) uniforms in [0, 1)."""
    return torch.where((draws[:, 0] < chance).view(-1, 1, 1, 1), gray(images), images)


def solarize(images: Tensor, draws: Tensor, chance: Chance) -> Tensor:
    """Invert values from 0.5 on, with probability `chance`. draws: (B, 1) uniforms in [0, 1)."""
    bright = (draws[:, 0] < chance).view(-1, 1, 1, 1) & (images >= 0.5)
    return torch.where(bright, 1 - images, images)


@exact
def blur(images: Tensor, draws: Tensor, chance: Chance) -> Tensor:
    """Blur images with probability `chance` (arXiv:2006.07733, appendix B).

    sigma is drawn from [0.1, 2.0] px at 224 px, and in proportion at other sides; the kernel spans
    a tenth of the side. draws: (B, 2) uniforms in [0, 1), for the chance and for sigma.
    """
    sigma = (0.1 + 1.9 * draws[:, 1]) * (images.shape[-1] / 224)
    return replace_rows(images.clone(), draws[:, 0] < chance, _blurred, images, sigma)


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


def replace_rows(
    into: Tensor,
    chosen: Tensor,
    operation: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    values: Tensor,
) -> Tensor:
    """Return `into` with the chosen rows replaced by operation(images, values); may overwrite it.

    A CPU computes the chosen rows only. A GPU computes all: to read how many rows are chosen would
    synchronize with it.
    """
    if images.device.type != "cpu":
        return torch.where(chosen.view(-1, 1, 1, 1), operation(images, values), into)
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        into[rows] = operation(images[rows], values[rows])
    return into
