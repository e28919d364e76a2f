"""Augments the geometry of whole batches on the training device, each image on its own.

Images are (B, 3, H, W). Random functions take uniforms in [0, 1), one row per image, so that the
caller decides where randomness comes from (see `randomness.uniform`).
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.numerics.precision import constant, exact
from trainables.transforms.resample import Boxes, resample

# ImageNet's channel statistics (torchvision's documentation), used for every data set: the first
# BatchNorm absorbs the rest, and every weight transfer meets the same normalization.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_TRIES = 10  # of a resized crop, as torchvision has it
CROP_DRAWS = 2 + 2 * _TRIES
_LEAST = 0.08  # share of the area that a resized crop shows at least, as torchvision has it


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


def unstandardize(images: Tensor) -> Tensor:
    """Undo `standardize`."""
    mean, std = constant(MEAN, images.device), constant(STD, images.device)
    return images * std.view(1, 3, 1, 1) + mean.view(1, 3, 1, 1)


def flip(images: Tensor, draws: Tensor) -> Tensor:
    """Mirror left-right where draws[:, 0] < 0.5. draws: (B, 1) uniforms in [0, 1)."""
    mirrored = images.flip(-1)
    return torch.where((draws[:, 0] < 0.5).view(-1, 1, 1, 1), mirrored, images)


def center_crop(images: Tensor, side: int | None) -> Tensor:
    """Return the center square of `side` px, as torchvision's CenterCrop; None: the whole image."""
    if side is None or tuple(images.shape[2:]) == (side, side):
        return images
    top, left = (round((length - side) / 2) for length in images.shape[2:])
    return images[:, :, top : top + side, left : left + side]


def crop(images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    """Cut a random square of `side` px out of each image, as torchvision's RandomCrop.

    Without a side, or with the image's own, shift by up to an eighth of the side, zeros outside: at
    32 px the usual pad-4-and-crop. draws: (B, 2) uniforms in [0, 1), vertical and horizontal.
    """
    batch, _, height, width = images.shape
    if side is None or (height, width) == (side, side):
        reach = max(1, height // 8)
        offsets = (draws * (2 * reach + 1)).long()
        images, shape = F.pad(images, (reach,) * 4), (height, width)
    else:
        down, across = height - side + 1, width - side + 1
        offsets = torch.stack([draws[:, 0] * down, draws[:, 1] * across], 1).long()
        shape = side, side
    # (B, 3, places, places, H, W): every crop there is, as a view; only one is copied
    crops = images.unfold(2, shape[0], 1).unfold(3, shape[1], 1)
    return crops[torch.arange(batch, device=images.device), :, offsets[:, 0], offsets[:, 1]]


@exact
def resized_crop(
    images: Tensor, draws: Tensor, least: float = _LEAST, side: int | None = None
) -> Tensor:
    """Crop a random rectangle and resize it to `side` px, None: to the shape of the input.

    Bilinear; to another shape antialiased. To that of the input nothing is made smaller.

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
    if side is not None and tuple(images.shape[2:]) != (side, side):
        down, across = draws[:, 0] * (1 - height), draws[:, 1] * (1 - width)
        tall, broad = images.shape[2:]
        boxes = Boxes(down * tall, across * broad, height * tall, width * broad)
        return resample(images, boxes, side, True)
    across, down = (draws[:, 1] * 2 - 1) * (1 - width), (draws[:, 0] * 2 - 1) * (1 - height)
    none = torch.zeros_like(width)
    theta = torch.stack([width, none, across, none, height, down], 1).to(images.dtype)
    grid = F.affine_grid(theta.view(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def rotate90(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate square images counter-clockwise by quarter turns. turns: (B,) int64 in 0..3."""
    rotated = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return rotated[turns, torch.arange(len(images), device=images.device)]


def _none(images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    return normalize(center_crop(images, side))


def _flip(images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    return normalize(flip(center_crop(images, side), draws[:, :1]))


def _crop(images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    return normalize(crop(images, draws[:, :2], side))


def _crop_flip(images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    return normalize(flip(crop(images, draws[:, :2], side), draws[:, 2:3]))


def _resized_crop_flip(images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    cropped = resized_crop(normalize(images), draws[:, :CROP_DRAWS], _LEAST, side)
    return flip(cropped, draws[:, CROP_DRAWS:])


class Augmentation(Protocol):
    """Changes images at random: (B, C, S, S) uint8 or normalized, uniforms (B, n) in [0, 1), and
    the side of the result in px, None for S. Returns normalized floats."""

    def __call__(self, images: Tensor, draws: Tensor, side: int | None = None) -> Tensor: ...


# name in a study → (uniforms per image, what changes a batch)
AUGMENTATIONS: dict[str, tuple[int, Augmentation]] = {
    "none": (0, _none),
    "flip": (1, _flip),
    "crop": (2, _crop),
    "crop_flip": (3, _crop_flip),
    "resized_crop_flip": (CROP_DRAWS + 1, _resized_crop_flip),
}
