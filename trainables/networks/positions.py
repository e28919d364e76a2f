"""Finds the grid of positions that a ViT has learned, one for each patch of its images.

Nothing here loads torch: a plan reads it.
"""

import math
from dataclasses import dataclass

_NAMES = ("pos_embedding", "pos_embed")  # torchvision's, timm's
_MOST_OTHERS = 8  # class token and registers: positions that stand before those of patches


@dataclass(frozen=True)
class Grids:
    """Holds the sides of two square grids of positions. others: positions before them, of no patch;
    given, wanted: patches along a side."""

    others: int
    given: int
    wanted: int

    def __str__(self) -> str:
        return f"positions interpolated from {self.given} x {self.given} patches to {self.wanted}"


def other_grid(name: str, given: tuple[int, ...], wanted: tuple[int, ...]) -> Grids | None:
    """Return the grids of a tensor of positions for images of another size; None where it has the
    same ones, or is no such tensor.

    name: of the tensor; given, wanted: its shape in a file and in the network, (1, N, D).
    """
    if not name.endswith(_NAMES) or given == wanted or not len(given) == len(wanted) == 3:
        return None
    if (given[0], given[2]) != (wanted[0], wanted[2]):
        return None
    for others in range(min(_MOST_OTHERS, given[1], wanted[1])):
        sides = [math.isqrt(shape[1] - others) for shape in (given, wanted)]
        if all(s * s == n[1] - others for s, n in zip(sides, (given, wanted), strict=True)):
            return Grids(others, *sides)
    return None
