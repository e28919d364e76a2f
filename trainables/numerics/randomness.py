"""Draws random numbers by counting: a draw is a hash of its purpose, not a position in a stream.

A draw depends on (seed, epoch, sample index, number of the draw) alone, so it is the same on any
worker, in any batch, on the CPU and on a GPU, and after a resume.
"""

from functools import lru_cache

import torch
from torch import Tensor

from trainables.numerics.seeds import derived_seed

_MASK = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """Mix 32 bits bijectively: `lowbias32` (Chris Wellons, "Prospecting for Hash Functions", 2018).

    x: int64 holding values in [0, 2**32). Returns the same range.
    """
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


@lru_cache(maxsize=64)
def _lanes(draws: int, device: torch.device) -> Tensor:
    """Return what tells the draws of a sample apart, (draws,) int64. Do not write to it."""
    with torch.inference_mode(False):
        return torch.arange(draws, dtype=torch.int64, device=device) * 0x9E3779B9


def uniform(seed: int, epoch: int, indices: Tensor, draws: int) -> Tensor:
    """Draw independent uniform numbers in [0, 1) for each sample.

    indices: (B,) int64 sample numbers. Returns (B, draws) float32 on the device of `indices`.
    """
    start = derived_seed("uniform", seed, epoch)
    state = _mix((indices[:, None] & _MASK) ^ (start & _MASK))
    state = _mix((state + _lanes(draws, indices.device)) & _MASK)
    state = _mix(state ^ ((start >> 32) & _MASK))
    return (state >> 8).to(torch.float32) / 2**24


def permutation(count: int, *parts: object) -> Tensor:
    """Return a permutation of range(count), (count,) int64 on the CPU, decided by `parts` alone."""
    generator = torch.Generator().manual_seed(derived_seed("permutation", *parts))
    return torch.randperm(count, generator=generator)
