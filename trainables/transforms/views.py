"""Makes the two random views of an image that self-supervised learning compares.

A view takes (B, 3, S, S) uint8, its uniforms (B, n) in [0, 1), the smallest share of the area that
its crop shows, and its side in px, None for S. It returns a normalized float batch.

Images of other channels, (B, C, S, S) float that are normalized already, have no hue, saturation or
gray, and no middle to solarize at: their views leave these out.
"""

from typing import Protocol

import torch
from torch import Tensor

from trainables.numerics.precision import constant
from trainables.transforms.color import (
    JITTER_DRAWS,
    Chance,
    blur,
    jitter,
    jitter_bands,
    solarize,
    to_gray,
)
from trainables.transforms.geometry import CROP_DRAWS, flip, resized_crop, standardize


class View(Protocol):
    def __call__(
        self, images: Tensor, draws: Tensor, least: float, side: int | None = None
    ) -> Tensor: ...


_Chances = tuple[float, ...]
_CROP = CROP_DRAWS + 1  # draws of a resized crop and a flip


def _of_bands(
    images: Tensor, draws: Tensor, strengths: tuple[float, float], chance: float, blurred: _Chances
) -> Tensor:
    """Make a view of other channels, cropped already. strengths: of brightness and contrast;
    chance: of the jitter; blurred: of the blur, whose draws come last."""
    images = jitter_bands(images, draws[:, _CROP:], strengths, chance)
    return blur(images, draws[:, -3:-1], _of_each(blurred, draws)) if any(blurred) else images


def _of_each(chances: _Chances, draws: Tensor) -> Chance:
    """Return the chance of all images, or of each: those of the first half of the images, then
    those of the second."""
    if len(chances) == 1:
        return chances[0]
    return constant(chances, draws.device).repeat_interleave(
        len(draws) // 2, output_size=len(draws)
    )


def _cropped(images: Tensor, draws: Tensor, least: float, side: int | None = None) -> Tensor:
    """Crop, resize and flip. Returns float in [0, 1], of other channels normalized."""
    given = images if images.is_floating_point() else images.float() / 255
    cropped = resized_crop(given, draws[:, :CROP_DRAWS], least, side)
    cropped = flip(cropped, draws[:, CROP_DRAWS:_CROP])
    return cropped if images.is_floating_point() else cropped.clamp(0, 1)


def _report(images: Tensor, draws: Tensor, least: float, side: int | None = None) -> Tensor:
    """Make a view as in the report on Office-Home: resized crop, flip, color jitter of 0.2."""
    cropped = _cropped(images, draws, least, side)
    if images.is_floating_point():
        return _of_bands(cropped, draws, (0.2, 0.2), 1.0, (0.0,))
    images = cropped
    return standardize(jitter(images, draws[:, _CROP:], (0.2, 0.2, 0.2, 0.2), 1.0))


def _strong(
    strengths: tuple[float, float, float, float], blurred: _Chances, solarized: _Chances
) -> View:
    """Return a view: crop, flip, color jitter (chance 0.8), gray (0.2), blur and solarization.

    strengths: of the jitter; blurred, solarized: their chances in [0, 1], of both views where they
    are made together.
    """

    def view(images: Tensor, draws: Tensor, least: float, side: int | None = None) -> Tensor:
        cropped = _cropped(images, draws, least, side)
        if images.is_floating_point():
            return _of_bands(cropped, draws, strengths[:2], 0.8, blurred)
        images = cropped
        draws = draws[:, _CROP:]
        images = jitter(images, draws, strengths, 0.8)
        draws = draws[:, JITTER_DRAWS:]
        images = to_gray(images, draws[:, :1], 0.2)
        images = blur(images, draws[:, 1:3], _of_each(blurred, draws))
        return standardize(solarize(images, draws[:, 3:4], _of_each(solarized, draws)))

    return view


_REPORT_DRAWS = _CROP + JITTER_DRAWS
_STRONG_DRAWS = _CROP + JITTER_DRAWS + 4
_PAPER = (0.4, 0.4, 0.2, 0.1)  # BYOL's (arXiv:2006.07733, table 6): its two views differ
_SIMCLR = _strong((0.8, 0.8, 0.8, 0.2), (0.5,), (0.0,))  # SimCLR's (arXiv:2002.05709, appendix A)
# name in a study → (uniforms per image, view) of the first and of the second view
VIEWS: dict[str, tuple[tuple[int, View], tuple[int, View]]] = {
    "report": ((_REPORT_DRAWS, _report), (_REPORT_DRAWS, _report)),
    "paper": (
        (_STRONG_DRAWS, _strong(_PAPER, (1.0,), (0.0,))),
        (_STRONG_DRAWS, _strong(_PAPER, (0.1,), (0.2,))),
    ),
    "simclr": ((_STRONG_DRAWS, _SIMCLR), (_STRONG_DRAWS, _SIMCLR)),
}
# what makes both at once, of the images twice
_TOGETHER: dict[str, View] = {
    "report": _report,
    "paper": _strong(_PAPER, (1.0, 0.1), (0.0, 0.2)),
    "simclr": _SIMCLR,
}


def draws_of(name: str) -> int:
    """Return how many uniforms of an image its two views take."""
    (first, _), (second, _) = VIEWS[name]
    return first + second


def two_views(
    name: str, images: Tensor, draws: Tensor, least: float, side: int | None
) -> tuple[Tensor, Tensor]:
    """Make both views. draws: (B, `draws_of(name)`); otherwise as of a `View`."""
    (first, one), (_, two) = VIEWS[name]
    of_each = draws[:, :first], draws[:, first:]
    if images.device.type == "cpu":
        return one(images, of_each[0], least, side), two(images, of_each[1], least, side)
    return views_together(name, images, of_each, least, side)


def views_together(
    name: str, images: Tensor, draws: tuple[Tensor, Tensor], least: float, side: int | None
) -> tuple[Tensor, Tensor]:
    """Make both views in one pass, up to rounding as one after the other: for a GPU, which needs
    half as many operations. draws: those of either view."""
    made = _TOGETHER[name](torch.cat([images, images]), torch.cat(draws), least, side)
    one, two = made.chunk(2)
    return one, two
