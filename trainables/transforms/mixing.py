"""Mixes images with partners, and erases parts of them, in whole batches on the training device.

Functions take uniforms in [0, 1), one row per image. Images are (B, C, H, W) normalized floats.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from trainables.numerics.precision import constant

ERASE_TRIES = 10  # rectangles that are drawn until one fits, as torchvision has it
ERASE_DRAWS = 3 + 2 * ERASE_TRIES  # chance, vertical, horizontal; area and aspect of every try
MIX_DRAWS = 4  # which way, the share, and for cutmix the middle of the rectangle
_KNOTS = 1025  # of the table of a beta distribution


def erase(images: Tensor, draws: Tensor, chance: float) -> Tensor:
    """Set a rectangle of some images to 0 (arXiv:1708.04896), as torchvision's RandomErasing draws
    it: 2 to 33 % of the area, aspect in 0.3..3.3, the first of ten that fits; none: no change.

    draws: (B, 23); chance: in [0, 1].
    """
    height, width = images.shape[2:]
    area = (0.02 + 0.31 * draws[:, 3::2]) * height * width
    low, high = math.log(0.3), math.log(3.3)
    aspect = torch.exp(low + (high - low) * draws[:, 4::2])
    tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    erased = (draws[:, 0] < chance) & fits.any(1)
    tall, wide = (side.gather(1, first)[:, 0] for side in (tall, wide))
    top = (draws[:, 1] * (height - tall + 1)).floor()
    left = (draws[:, 2] * (width - wide + 1)).floor()
    inside = rectangle((height, width), (top, left, top + tall, left + wide))
    return torch.where((inside & erased.view(-1, 1, 1))[:, None], 0.0, images)


def rectangle(size: tuple[int, int], edges: tuple[Tensor, ...]) -> Tensor:
    """Return which pixels lie in a rectangle of each image, (B, H, W) bool. edges: top, left,
    bottom and right, (B,) in px, the last two just outside."""
    top, left, bottom, right = (edge.view(-1, 1, 1) for edge in edges)
    rows = torch.arange(size[0], device=top.device).view(1, -1, 1)
    columns = torch.arange(size[1], device=top.device).view(1, 1, -1)
    return (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)


def mix(
    images: Tensor, partners: Tensor, draws: Tensor, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mix each image with its partner: by mixup (arXiv:1710.09412) or by cutmix (arXiv:1905.04899),
    each half of the time where both are wanted.

    draws: (B, 4); mixup, cutmix: alpha of the Beta(alpha, alpha) from which the share of the image
    is drawn, 0: never. Returns the mixed images, and the share of the image in each, (B,).
    """
    chances = draws[:, 0] if mixup and cutmix else torch.full_like(draws[:, 0], float(not mixup))
    blended = chances < 0.5
    shares = torch.where(
        blended, _beta(draws[:, 1], mixup or 1.0), _beta(draws[:, 1], cutmix or 1.0)
    )
    pasted, kept = _pasted(images, partners, draws, shares)
    parts = shares.view(-1, 1, 1, 1)
    mixed = torch.where(blended.view(-1, 1, 1, 1), parts * images + (1 - parts) * partners, pasted)
    return mixed, torch.where(blended, shares, kept)


def _pasted(
    images: Tensor, partners: Tensor, draws: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """Paste a rectangle of each partner, as large as its share; it may hang over. Returns the
    images and the share that is left of each."""
    height, width = images.shape[2:]
    half = 0.5 * (1 - shares).sqrt()
    middle_y, middle_x = (draws[:, 2] * height).floor(), (draws[:, 3] * width).floor()
    tall, wide = (half * height).floor(), (half * width).floor()
    top, left = (middle_y - tall).clamp(min=0), (middle_x - wide).clamp(min=0)
    bottom, right = (middle_y + tall).clamp(max=height), (middle_x + wide).clamp(max=width)
    inside = rectangle((height, width), (top, left, bottom, right))
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return torch.where(inside[:, None], partners, images), kept


def _beta(draws: Tensor, alpha: float) -> Tensor:
    """Return the quantiles of Beta(alpha, alpha) at uniforms in [0, 1)."""
    table = constant(_quantiles(alpha), draws.device)
    lower = torch.minimum(draws, 1 - draws)  # it is symmetric
    place = (lower * 2 * (_KNOTS - 1)).clamp(0, _KNOTS - 1)
    before = place.floor().long().clamp(max=_KNOTS - 2)
    powers = torch.lerp(table[before], table[before + 1], place - before)
    shares = powers ** (1 / alpha)
    return torch.where(draws < 0.5, shares, 1 - shares)


@lru_cache(maxsize=16)
def _quantiles(alpha: float) -> tuple[float, ...]:
    """Return x**alpha at the quantiles 0 to 1/2 of Beta(alpha, alpha), evenly spaced.

    The density of y = x**alpha is (1 - y**(1/alpha))**(alpha - 1) up to a factor: it is finite, so
    that its sum by trapezoids is exact to about six digits, also for alpha below 1.
    """
    steps = 200_000
    y = torch.linspace(0, 0.5**alpha, steps + 1, dtype=torch.float64)
    density = (1 - y ** (1 / alpha)) ** (alpha - 1)
    summed = torch.cat([y.new_zeros(1), ((density[1:] + density[:-1]) / 2).cumsum(0)])
    wanted = torch.linspace(0, float(summed[-1]), _KNOTS, dtype=torch.float64)
    after = torch.searchsorted(summed, wanted).clamp(1, steps)
    low, high = summed[after - 1], summed[after]
    found = torch.lerp(y[after - 1], y[after], ((wanted - low) / (high - low)).clamp(0, 1))
    return tuple(found.tolist())
