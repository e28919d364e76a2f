"""Makes images smaller without aliasing: each output pixel is the weighted mean of all that it
covers, as Pillow and torchvision (`antialias=True`) do it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.numerics.precision import exact


@dataclass(frozen=True)
class Boxes:
    """A rectangle in each image: top, left, height and width, (B,) float in px."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@exact
def resample(images: Tensor, boxes: Boxes, side: int, within: bool) -> Tensor:
    """Scale a rectangle of each image to side x side px, bilinear with antialiasing.

    images: (B, C, H, W) float; within: pixels beside the rectangle are not looked at, as if it had
    been cut out first. Pixels beside the image are never looked at; an output pixel whose centre
    lies there is 0. Returns (B, C, side, side).
    """
    height, width = images.shape[2:]
    rows = _weights(boxes.top, boxes.height, (side, height), within)
    columns = _weights(boxes.left, boxes.width, (side, width), within)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _weights(start: Tensor, length: Tensor, sides: tuple[int, int], within: bool) -> Tensor:
    """Return how much each input pixel counts in each output pixel: a triangle whose half width is
    an output pixel, at least an input pixel. start, length: (B,); sides: of output V and input S.
    Returns (B, V, S), whose rows sum to 1, or to 0 where the centre is outside."""
    out, side = sides
    scale = (length / out).view(-1, 1, 1)
    place = torch.arange(out, device=start.device) + 0.5
    centre = start.view(-1, 1, 1) + scale * place.view(1, -1, 1)
    pixel = torch.arange(side, device=start.device).view(1, 1, -1) + 0.5
    weights = (1 - (pixel - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    if within:  # its pixels are those whose centres it holds, and the nearest where it holds none
        low, high = start.view(-1, 1, 1), (start + length).view(-1, 1, 1)
        middle = (low + high) / 2
        held = (pixel - middle).abs() <= ((high - low) / 2).clamp(min=0.5)
        weights = weights * held
    weights = weights * ((centre > 0) & (centre < side))
    return weights / weights.sum(2, keepdim=True).clamp(min=1e-6)
