"""Makes all random changes of a classifier's training image, in their order: geometry, colors, the
operations of a policy, and what is erased."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from trainables.transforms.color import JITTER_DRAWS, jitter
from trainables.transforms.geometry import AUGMENTATIONS, standardize, unstandardize
from trainables.transforms.mixing import ERASE_DRAWS, erase
from trainables.transforms.policies import POLICY_DRAWS, apply_policy


class Settings(Protocol):
    """The part of a configuration that decides them."""

    @property
    def augment(self) -> str: ...
    @property
    def view_size(self) -> int | None: ...
    @property
    def color_jitter(self) -> float: ...
    @property
    def policy(self) -> str: ...
    @property
    def operations(self) -> int: ...
    @property
    def magnitude(self) -> int: ...
    @property
    def erase(self) -> float: ...


def changes_of(settings: Settings) -> tuple[int, Callable[[Tensor, Tensor], Tensor]]:
    """Return the number of uniforms per image, and what changes a batch: (B, 3, S, S) uint8 and
    (B, n) uniforms in [0, 1) → normalized floats."""
    moves, move = AUGMENTATIONS[settings.augment]
    random_size = settings.policy == "randaugment"
    operations = 0 if settings.policy == "none" else settings.operations if random_size else 1
    counts = [
        moves,
        JITTER_DRAWS if settings.color_jitter else 0,
        POLICY_DRAWS * operations,
        ERASE_DRAWS if settings.erase else 0,
    ]

    def change(images: Tensor, draws: Tensor) -> Tensor:
        for_move, for_color, for_policy, for_erasing = torch.split(draws, counts, 1)
        images = move(images, for_move, settings.view_size)
        if settings.color_jitter:
            strength = settings.color_jitter
            strengths = (strength, strength, strength, strength / 4)
            colored = jitter(unstandardize(images).clamp(0, 1), for_color, strengths, 1.0)
            images = standardize(colored)
        if operations:
            pixels = (unstandardize(images) * 255).round().clamp(0, 255)
            magnitude = settings.magnitude if random_size else None
            pixels = apply_policy(pixels, for_policy, settings.policy, magnitude)
            images = standardize(pixels / 255)
        return erase(images, for_erasing, settings.erase) if settings.erase else images

    return sum(counts), change
