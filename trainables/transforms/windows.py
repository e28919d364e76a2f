"""Joins what was found in the windows of one image: logits are averaged where windows overlap."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainables.dataset import IGNORED

Places = Sequence[tuple[int, int]]  # top and left of each window in px


def joined(pieces: Iterable[Tensor], places: Places) -> Tensor:
    """Average windows into their image.

    pieces: (n, K, S, S) float, all windows in the order of `places`, some at a time. Returns (1, K,
    H, W); of a single window its own values.
    """
    total: Tensor | None = None
    seen, done = torch.empty(0), 0
    for piece in pieces:
        if total is None:
            side = piece.shape[-1]
            height, width = (max(place[k] for place in places) + side for k in (0, 1))
            total = piece.new_zeros(1, piece.shape[1], height, width, dtype=torch.float32)
            seen = torch.zeros_like(total[:, :1])
        for window, (top, left) in zip(piece, places[done:], strict=False):
            area = (0, slice(None), slice(top, top + side), slice(left, left + side))
            total[area] += window
            seen[area] += 1
        done += len(piece)
    if total is None:
        raise ValueError("an image has no window")
    return total / seen


def joined_masks(masks: Tensor, places: Places) -> Tensor:
    """Put the masks of windows together: (n, S, S) uint8 class ids → (1, H, W)."""
    side = masks.shape[-1]
    height, width = (max(place[k] for place in places) + side for k in (0, 1))
    whole = masks.new_full((1, height, width), IGNORED)
    for mask, (top, left) in zip(masks, places, strict=True):
        area = whole[0, top : top + side, left : left + side]
        area.copy_(torch.where(mask == IGNORED, area, mask))
    return whole
