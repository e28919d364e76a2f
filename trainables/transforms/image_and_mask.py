"""Augments images and masks together on the training device, each pair with its own parameters:
scale, crop, mirror and quarter turns in one resampling.

Masks are sampled from the nearest pixel; pixels outside the image do not count.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.dataset import IGNORED
from trainables.numerics.precision import exact
from trainables.transforms.geometry import normalize

DRAWS = 5  # uniforms an image: scale, vertical, horizontal, mirror, quarter turns


@exact
def scaled_crop(
    images: Tensor, masks: Tensor, draws: Tensor, side: int, scales: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Cut a square out of each pair, enlarged by a drawn factor, mirrored and turned.

    images: (B, 3, S, S) uint8; masks: (B, S, S) uint8 class ids; draws: (B, 5) in [0, 1); side: in
    px; scales: smallest and largest factor, drawn evenly on a logarithmic scale. Returns normalized
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
    pixels = F.grid_sample(normalize(images), grid, align_corners=False)
    # ids are shifted by 1, since grid_sample gives 0 outside the image
    ids = masks[:, None].float() + 1
    shifted = F.grid_sample(ids, grid, mode="nearest", align_corners=False)[:, 0].round()
    return pixels, torch.where(shifted == 0, IGNORED, shifted - 1).to(torch.uint8)
