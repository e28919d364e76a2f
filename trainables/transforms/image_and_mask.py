"""Augments pairs of image and mask on the training device, each with its own parameters:
scale, crop, mirror and quarter turns in one resampling, and colors of the image alone.

Masks are sampled from the nearest pixel; pixels outside the image do not count.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.dataset import IGNORED
from trainables.numerics.precision import exact
from trainables.transforms.color import JITTER_DRAWS, jitter
from trainables.transforms.geometry import normalize, standardize, unstandardize
from trainables.transforms.resample import Boxes, resample

DRAWS = 5  # uniforms an image: scale, vertical, horizontal, mirror, quarter turns
COLOR_DRAWS = JITTER_DRAWS  # more of them where colors change
Scales = tuple[float, float]  # smallest and largest factor, drawn evenly on a logarithmic scale


@dataclass(frozen=True)
class _Squares:
    """The square that is cut out of each image: (B,) each, where 1 is half of the image's side.

    share: half of its side; across, down: its centre from the image's; mirror: 1 or -1; cos, sin:
    of the quarter turns.
    """

    share: Tensor
    across: Tensor
    down: Tensor
    mirror: Tensor
    cos: Tensor
    sin: Tensor

    def grid(self, side: int, whole: bool = False) -> Tensor:
        """Return where each output pixel is sampled, for `grid_sample`. whole: only the mirror and
        the turns, of squares that are cut out already."""
        share = torch.ones_like(self.share) if whole else self.share
        across, down = (0 * self.across, 0 * self.down) if whole else (self.across, self.down)
        theta = torch.stack(
            [
                torch.stack([self.cos * share * self.mirror, -self.sin * share, across], 1),
                torch.stack([self.sin * share * self.mirror, self.cos * share, down], 1),
            ],
            1,
        )
        return F.affine_grid(theta, [len(theta), 1, side, side], align_corners=False)

    def boxes(self, side: int) -> Boxes:
        """Return them in px of images of `side` px."""
        length = self.share * side
        left, top = ((place + 1) / 2 * side - length / 2 for place in (self.across, self.down))
        return Boxes(top, left, length, length)

    def at(self, rows: Tensor) -> "_Squares":
        return _Squares(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def _drawn(draws: Tensor, side: int, image_side: int, scales: Scales) -> _Squares:
    low, high = (math.log(scale) for scale in scales)
    factor = torch.exp(low + (high - low) * draws[:, 0])
    share = side / (image_side * factor)  # of the image's side that the square takes
    room = (1 - share).abs()  # where the square is larger than the image, it may hang over
    down, across = ((2 * draws[:, k] - 1) * room for k in (1, 2))
    mirror = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
    turns = (draws[:, 4] * 4).long() * (math.pi / 2)
    # rounded, they are exact: only quarter turns
    return _Squares(share, across, down, mirror, turns.cos().round(), turns.sin().round())


@exact
def scaled_crop(
    images: Tensor, masks: Tensor, draws: Tensor, side: int, scales: Scales
) -> tuple[Tensor, Tensor]:
    """Cut a square out of each pair, enlarged by a drawn factor, mirrored and turned.

    images: (B, 3, S, S) uint8; masks: (B, S, S) uint8 class ids; draws: (B, 5) in [0, 1); side: in
    px; scales: smallest and largest factor. Returns normalized (B, 3, side, side) and (B, side,
    side) uint8; outside the image pixels are ImageNet's mean and IGNORED. Where the factor is below
    1 the image is antialiased.
    """
    squares = _drawn(draws, side, images.shape[-1], scales)
    given = normalize(images)
    pixels = F.grid_sample(given, squares.grid(side), align_corners=False)
    if scales[0] < 1:
        pixels = _antialiased(pixels, given, squares, side)
    return pixels, _crop_masks(masks, squares.grid(side))[0]


@exact
def mask_crop(masks: Tensor, draws: Tensor, side: int, scales: Scales) -> Tensor:
    """Return the masks of `scaled_crop` alone."""
    return _crop_masks(masks, _drawn(draws, side, masks.shape[-1], scales).grid(side))[0]


@exact
def jittered_crop(
    images: Tensor, masks: Tensor, draws: Tensor, crop: tuple[int, Scales], strength: float
) -> tuple[Tensor, Tensor]:
    """Make a `scaled_crop`, and change the colors of the image as torchvision's ColorJitter does.

    images: RGB uint8; draws: (B, 14) in [0, 1), those of the crop first; crop: side and scales;
    strength: of brightness, contrast and saturation, in [0, 1]; that of the hue is a quarter.
    """
    (side, scales), strengths = crop, (strength, strength, strength, strength / 4)
    pixels, ids = scaled_crop(images, masks, draws, side, scales)
    squares = _drawn(draws, side, images.shape[-1], scales)
    _, outside = _crop_masks(masks, squares.grid(side))
    colored = unstandardize(pixels).clamp(0, 1)
    colored = standardize(jitter(colored, draws[:, DRAWS:], strengths, 1.0))
    return torch.where(outside[:, None], pixels, colored), ids


def _antialiased(pixels: Tensor, images: Tensor, squares: _Squares, side: int) -> Tensor:
    """Return `pixels`, made anew without aliasing where the image is made smaller."""
    smaller = squares.share * images.shape[-1] > side
    if images.device.type != "cpu":  # to read how many they are would synchronize with a GPU
        anew = _turned(images, squares, side)
        return torch.where(smaller.view(-1, 1, 1, 1), anew, pixels)
    rows = smaller.nonzero()[:, 0]
    if len(rows):
        pixels[rows] = _turned(images[rows], squares.at(rows), side)
    return pixels


def _turned(images: Tensor, squares: _Squares, side: int) -> Tensor:
    upright = resample(images, squares.boxes(images.shape[-1]), side, False)
    grid = squares.grid(side, whole=True)
    return F.grid_sample(upright, grid, mode="nearest", align_corners=False)


def _crop_masks(masks: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the masks (B, side, side) uint8, and which of their pixels lie outside the image."""
    # ids are shifted by 1, since grid_sample gives 0 outside the image
    ids = masks[:, None].float() + 1
    shifted = F.grid_sample(ids, grid, mode="nearest", align_corners=False)[:, 0].round()
    outside = shifted == 0
    return torch.where(outside, IGNORED, shifted - 1).to(torch.uint8), outside
