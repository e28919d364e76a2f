"""Augments the geometry of whole batches on the training device, each image on its own.

Images are (B, 3, H, W). Random functions take uniforms in [0, 1), one row per image, so that the
caller decides where randomness comes from (see `randomness.uniform`).
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.numerics.precision import constant, exact

# ImageNet's channel statistics (torchvision's documentation), used for every data set: the first
# BatchNorm absorbs the rest, and every weight transfer meets the same normalization.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_TRIES = 10  # of a resized crop, as torchvision has it
CROP_DRAWS = 2 + 2 * _TRIES


def normalize(images: Tensor) -> Tensor:
    """Map uint8 in [0, 255] to float32, less ImageNet's channel means, over its deviations.

    Float images are normalized already, by their own data set, and returned as they are.
    """
    if images.is_floating_point():
        return images
    return standardize(images.float() / 255.0)


def standardize(images: Tensor) -> Tensor:
    """Map float in [0, 1] to the same less ImageNet's channel means, over its deviations."""
    mean, std = constant(MEAN, images.device), constant(STD, images.device)
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)


def flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror left-right where draws[:, 0] < 0.5. draws: (B, 1) uniforms in [0, 1)."""
    mirrored = images.flip(-1)
    return torch.where((draws[:, 0] < 0.5).view(-1, 1, 1, 1), mirrored, images)


def crop(images: Tensor, draws: Tensor) -> Tensor:
    """Shift by up to an eighth of the side, zeros outside: at 32 px the usual pad-4-and-crop.

    draws: (B, 2) uniforms in [0, 1), vertical and horizontal. Returns the shape of the input.
    """
    batch, _, height, width = images.shape
    reach = max(1, height // 8)
    offsets = (draws * (2 * reach + 1)).long()
    # (B, 3, 2 reach + 1, 2 reach + 1, H, W): every crop there is, as a view; only one is copied
    crops = F.pad(images, (reach,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return crops[torch.arange(batch, device=images.device), :, offsets[:, 0], offsets[:, 1]]


@exact
def resized_crop(images: Tensor, draws: Tensor, least: float = 0.08) -> Tensor:
    """Crop a random rectangle and resize it to the shape of the input (bilinear).

    It is the Inception crop (arXiv:1409.4842) as torchvision's RandomResizedCrop draws it from
    square images: the first of ten rectangles that fits. least: smallest share of the area, in
    (0, 1); the aspect is in 3/4..4/3. images: float; draws: (B, 22) uniforms in [0, 1): vertical,
    horizontal, then area and aspect of every try.
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
    """Rotate square images counter-clockwise by quarter turns. turns: (B,) int64 in 0..3."""
    rotated = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return rotated[turns, torch.arange(len(images), device=images.device)]


def _crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    return normalize(flip(crop(images, draws[:, :2]), draws[:, 2:3]))


def _flip(images: Tensor, draws: Tensor) -> Tensor:
    return normalize(flip(images, draws[:, :1]))


def _resized_crop_flip(images: Tensor, draws: Tensor) -> Tensor:
    cropped = resized_crop(normalize(images), draws[:, :CROP_DRAWS])
    return flip(cropped, draws[:, CROP_DRAWS:])


def _crop(images: Tensor, draws: Tensor) -> Tensor:
    return normalize(crop(images, draws[:, :2]))


# name in a study → (uniforms per image, function of uint8 batch and uniforms → normalized batch)
AUGMENTATIONS: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "none": (0, lambda images, draws: normalize(images)),
    "flip": (1, _flip),
    "crop": (2, _crop),
    "crop_flip": (3, _crop_flip),
    "resized_crop_flip": (CROP_DRAWS + 1, _resized_crop_flip),
}
