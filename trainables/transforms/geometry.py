"""Augmentation of whole batches on the training device, each image with its own parameters.

Images are (B, 3, H, W). Random functions take uniforms in [0, 1), one row an image, so that who
calls decides where randomness comes from (see `randomness.uniform`).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.numerics.precision import constant, exact

# ImageNet's channel statistics (torchvision's documentation), used for every data set: the first
# BatchNorm absorbs the rest, and a hand-off never meets another normalisation.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_TRIES = 10  # of a resized crop, as torchvision has it
CROP_DRAWS = 2 + 2 * _TRIES


def normalise(images: Tensor) -> Tensor:
    """uint8 in [0, 255] → float32 with ImageNet's channel means and deviations removed."""
    return standardise(images.float() / 255.0)


def standardise(images: Tensor) -> Tensor:
    """Float in [0, 1] → with ImageNet's channel means and deviations removed."""
    mean, std = constant(MEAN, images.device), constant(STD, images.device)
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror left-right where draws[:, 0] < 0.5. draws: (B, 1)."""
    mirrored = images.flip(-1)
    return torch.where((draws[:, 0] < 0.5).view(-1, 1, 1, 1), mirrored, images)


def crop(images: Tensor, draws: Tensor) -> Tensor:
    """Shift by up to an eighth of the side, zeros outside: CIFAR's pad-4-and-crop at 32 px.

    draws: (B, 2), vertical and horizontal. Returns the size of the input.
    """
    batch, _, height, width = images.shape
    reach = max(1, height // 8)
    offsets = (draws * (2 * reach + 1)).long()
    # (B, 3, 2 reach + 1, 2 reach + 1, H, W): every crop there is, as a view; only one is copied
    crops = F.pad(images, (reach,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(batch, device=images.device), :, offsets[:, 0], offsets[:, 1]]


@exact
def resized_crop(images: Tensor, draws: Tensor, least: float = 0.08) -> Tensor:
    """A rectangle of `least` to all of the area and aspect 3/4-4/3, resized to the whole
    (bilinear).

    The Inception crop (arXiv:1409.4842) as torchvision's RandomResizedCrop draws it from square
    images, in one grid_sample: the first of ten rectangles that fits. images: float. draws:
    (B, 22): vertical, horizontal, then area and aspect of every try.
    """
    area = least + (1 - least) * draws[:, 2::2]
    aspect = torch.exp((draws[:, 3::2] * 2 - 1) * math.log(4 / 3))
    wide, high = (area * aspect).sqrt(), (area / aspect).sqrt()  # of every try, (B, 10)
    first = ((wide <= 1) & (high <= 1)).int().argmax(1, keepdim=True)
    width, height = (side.gather(1, first)[:, 0].clamp(max=1) for side in (wide, high))
    theta = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
    theta[:, 0, 0], theta[:, 1, 1] = width, height
    theta[:, 0, 2] = (draws[:, 1] * 2 - 1) * (1 - width)
    theta[:, 1, 2] = (draws[:, 0] * 2 - 1) * (1 - height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def rotate90(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate square images counter-clockwise by turns[i] quarter turns. turns: (B,) in 0..3."""
    rotated = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return rotated[turns, torch.arange(len(images), device=images.device)]


def _crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    return normalise(flip(crop(images, draws[:, :2]), draws[:, 2:3]))


def _flip(images: Tensor, draws: Tensor) -> Tensor:
    return normalise(flip(images, draws[:, :1]))


def _resized_crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    cropped = resized_crop(normalise(images), draws[:, :CROP_DRAWS])
    return flip(cropped, draws[:, CROP_DRAWS:])


def _crop(images: Tensor, draws: Tensor) -> Tensor:
    return normalise(crop(images, draws[:, :2]))


# name in a study → (uniforms needed an image, uint8 batch and uniforms → normalised batch)
AUGMENTATIONS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "none": (0, lambda images, draws: normalise(images)),
    "flip": (1, _flip),
    "crop": (2, _crop),
    "crop_flip": (3, _crop_flip),
    "resized_crop_flip": (CROP_DRAWS + 1, _resized_crop_flip),
}
