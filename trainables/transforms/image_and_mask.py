"""Augmentation of images and masks together, on the training device, each pair with its own
parameters: scale, crop, mirror and quarter turns in one resampling.

Masks are taken from the nearest pixel, and what lies outside an image does not count.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.dataset import IGNORED
from trainables.numerics.precision import exact
from trainables.transforms.geometry import normalise

DRAWS = 5  # uniforms an image: scale, vertical, horizontal, mirror, quarter turns


@exact
def scaled_crop(
    images: Tensor, masks: Tensor, draws: Tensor, side: int, scales: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """A square of the image, enlarged by a drawn factor, mirrored and turned.

    images: (B, 3, S, S) uint8; masks: (B, S, S) uint8 class ids; draws: (B, 5) in [0, 1); scales:
    smallest and largest factor, drawn evenly on a logarithmic scale. Returns normalised
    (B, 3, side, side) and (B, side, side) uint8; outside the image pixels are ImageNet's mean and
    IGNORED.
    """
    low, high = (math.log(scale) for scale in scales)
    factor = torch.exp(low + (high - low) * draws[:, 0])
    share = side / (images.shape[-1] * factor)  # of the image's side that the square takes
    room = (1 - share).abs()  # where the square is larger than the image, it may hang over
    down, across = ((2 * draws[:, k] - 1) * room for k in (1, 2))
    mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
    turns = (draws[:, 4] * 4).long() * (math.pi / 2)
    cos, sin = turns.cos().round(), turns.sin().round()  # exact: only quarter turns
    theta = torch.stack(
        [
            torch.stack([cos * share * mirror, -sin * share, across], 1),
            torch.stack([sin * share * mirror, cos * share, down], 1),
        ],
        1,
    )
    grid = F.affine_grid(theta, [len(images), 1, side, side], align_corners=False)
    pixels = F.grid_sample(normalise(images), grid, align_corners=False)
    # one is added and taken away, so that what lies outside, 0, is told from class 0
    ids = masks[:, None].float() + 1
    found = F.grid_sample(ids, grid, mode="nearest", align_corners=False)[:, 0].round()
    return pixels, torch.where(found == 0, IGNORED, found - 1).to(torch.uint8)
