"""RandAugment (arXiv:1909.13719) and TrivialAugment (arXiv:2103.10158) of whole batches, each image
with its own operations.

An operation takes and returns images (b, 3, H, W) float32 of whole numbers in [0, 255], and values
(b,) of its own meaning. Each equals torchvision's function on uint8.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.numerics.precision import constant, exact
from trainables.transforms.color import gray, replace_rows

Operation = Callable[[Tensor, Tensor], Tensor]
BINS = 31  # of magnitudes, from 0 to 30
POLICY_DRAWS = 3  # uniforms for each operation of an image: which, how much, which sign


@dataclass(frozen=True)
class _Choice:
    """An operation: its values at the lowest and the highest magnitude; of_side: they are shares
    of the image's side; signed: the value is negated half of the time."""

    operation: Operation
    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    of_side: bool = False

    def values(self, side: int) -> tuple[float, ...]:
        """Return the values of all magnitudes, then those with the other sign. side: in px."""
        high = self.high * side if self.of_side else self.high
        plain = torch.linspace(self.low, high, BINS).tolist()
        negated = [-value for value in plain] if self.signed else plain
        return (*plain, *negated)


def _rounded_down(images: Tensor) -> Tensor:
    """Become whole numbers in [0, 255] as a cast to uint8 makes them."""
    return images.clamp(0, 255).floor()


def _blend(images: Tensor, other: Tensor, changes: Tensor) -> Tensor:
    """Return (1 + c) images - c other, whose two factors are rounded as torchvision's are."""
    changes = changes.view(-1, 1, 1, 1)
    return _rounded_down((1 + changes.double()).float() * images - changes * other)


def identity(images: Tensor, values: Tensor) -> Tensor:
    """Change nothing."""
    return images


def brightness(images: Tensor, changes: Tensor) -> Tensor:
    """Change the brightness: -1 gives black, 0 changes nothing."""
    return _blend(images, torch.zeros_like(images), changes)


def color(images: Tensor, changes: Tensor) -> Tensor:
    """Change the saturation: -1 gives grey, 0 changes nothing."""
    return _blend(images, gray(images).floor(), changes)


def contrast(images: Tensor, changes: Tensor) -> Tensor:
    """Change the contrast: -1 gives the mean grey of the image, 0 changes nothing."""
    return _blend(images, gray(images).floor().mean((1, 2, 3), keepdim=True), changes)


def sharpness(images: Tensor, changes: Tensor) -> Tensor:
    """Change the sharpness: -1 gives a smoothed image, 0 changes nothing; the rim is kept."""
    height, width = images.shape[2:]
    if min(height, width) <= 2:
        return images
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel / 13, groups=3).round()
    return _blend(images, smooth, changes)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper bits of each number, 8 keep all."""
    step = torch.exp2(8 - bits.round()).view(-1, 1, 1, 1)
    return (images / step).floor() * step


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert the numbers from a threshold on."""
    return torch.where(images >= thresholds.view(-1, 1, 1, 1), 255 - images, images)


def autocontrast(images: Tensor, values: Tensor) -> Tensor:
    """Stretch each channel from 0 to 255; one of a single number stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    spread = high - low
    flat = spread == 0
    scale = torch.where(flat, 1.0, 255 / spread.clamp(min=1))
    return _rounded_down((images - torch.where(flat, 0.0, low)) * scale)


def equalize(images: Tensor, values: Tensor) -> Tensor:
    """Make the numbers of each channel equally frequent, as Pillow does."""
    planes = images.flatten(2).flatten(0, 1).long()
    ones = torch.ones_like(planes)
    counts = torch.zeros(len(planes), 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(1, planes, ones)
    last = counts.gather(1, planes.amax(1, keepdim=True))
    step = (counts.sum(1, keepdim=True) - last) // 255
    table = (counts.cumsum(1) + step // 2) // step.clamp(min=1)
    table = F.pad(table, (1, 0))[:, :-1].clamp(0, 255)
    equal = torch.where(step == 0, planes, table.gather(1, planes))
    return equal.view(images.shape).to(images.dtype)


def shear_x(images: Tensor, shares: Tensor) -> Tensor:
    """Shift each row by a share of its place below the top."""
    ones, zeros = torch.ones_like(shares), torch.zeros_like(shares)
    return _moved(images, (ones, shares, shares * images.shape[2] / 2, zeros, ones, zeros))


def shear_y(images: Tensor, shares: Tensor) -> Tensor:
    """Shift each column by a share of its place right of the left rim."""
    ones, zeros = torch.ones_like(shares), torch.zeros_like(shares)
    return _moved(images, (ones, zeros, zeros, shares, ones, shares * images.shape[3] / 2))


def translate_x(images: Tensor, distances: Tensor) -> Tensor:
    """Shift by whole px to the right."""
    ones, zeros = torch.ones_like(distances), torch.zeros_like(distances)
    return _moved(images, (ones, zeros, -distances.trunc(), zeros, ones, zeros))


def translate_y(images: Tensor, distances: Tensor) -> Tensor:
    """Shift by whole px downwards."""
    ones, zeros = torch.ones_like(distances), torch.zeros_like(distances)
    return _moved(images, (ones, zeros, zeros, zeros, ones, -distances.trunc()))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate about the center, counter-clockwise."""
    angle, zeros = -degrees * (math.pi / 180), torch.zeros_like(degrees)
    cos, sin = angle.cos(), angle.sin()
    return _moved(images, (cos, sin, zeros, -sin, cos, zeros))


def _moved(images: Tensor, matrix: tuple[Tensor, ...]) -> Tensor:
    """Sample the nearest pixel at A (x, y, 1), in px from the center; outside is black. matrix: the
    six numbers of A by rows, (b,) each."""
    height, width = images.shape[2:]
    theta = torch.stack(matrix, 1).view(-1, 2, 3)
    across = torch.arange(width, device=images.device) - (width - 1) / 2
    down = torch.arange(height, device=images.device) - (height - 1) / 2
    x, y = across.expand(height, -1), down.view(-1, 1).expand(-1, width)
    places = torch.stack([x, y, torch.ones_like(x)], -1)
    halves = constant((width / 2, height / 2), images.device).view(1, 1, 2)
    grid = (places.view(1, -1, 3) @ (theta.transpose(1, 2) / halves)).view(-1, height, width, 2)
    return F.grid_sample(images, grid, mode="nearest", align_corners=False)


def _choices(
    shear: float, shift: tuple[float, bool], turn: float, factor: float, bits: int
) -> tuple[_Choice, ...]:
    far, of_side = shift
    return (
        _Choice(identity),
        _Choice(shear_x, 0, shear, signed=True),
        _Choice(shear_y, 0, shear, signed=True),
        _Choice(translate_x, 0, far, signed=True, of_side=of_side),
        _Choice(translate_y, 0, far, signed=True, of_side=of_side),
        _Choice(rotate, 0, turn, signed=True),
        *(
            _Choice(operation, 0, factor, signed=True)
            for operation in (brightness, color, contrast, sharpness)
        ),
        _Choice(posterize, 8, 8 - bits),
        _Choice(solarize, 255, 0),
        _Choice(autocontrast),
        _Choice(equalize),
    )


# name in a study → its operations, each as likely as any other; ranges as torchvision has them
POLICIES: dict[str, tuple[_Choice, ...]] = {
    "randaugment": _choices(0.3, (150 / 331, True), 30, 0.9, 4),
    "trivialaugment": _choices(0.99, (32, False), 135, 0.99, 6),
}


@exact
def apply_policy(images: Tensor, draws: Tensor, name: str, magnitude: int | None) -> Tensor:
    """Change each image by operations of its own, one for each POLICY_DRAWS of the draws.

    images: (B, 3, S, S) float32 of whole numbers in [0, 255]; draws: (B, 3 n) in [0, 1); magnitude:
    in [0, 30], None: drawn for each image. Returns images like those given.
    """
    choices = POLICIES[name]
    for which, much, sign in (each.unbind(1) for each in torch.split(draws, POLICY_DRAWS, 1)):
        chosen = (which * len(choices)).long()
        bins = (much * BINS).long() if magnitude is None else torch.full_like(chosen, magnitude)
        places = bins + BINS * (sign < 0.5)
        changed = images.clone()
        for number, choice in enumerate(choices):
            values = constant(choice.values(images.shape[-1]), images.device)[places]
            changed = replace_rows(changed, chosen == number, choice.operation, images, values)
        images = changed
    return images
