"""Joined windows are the mean where they overlap; of one window they are its own values."""

import torch

from trainables.dataset import IGNORED
from trainables.transforms.windows import joined, joined_masks


def test_one_window_stays_as_it_is() -> None:
    logits = torch.randn(1, 3, 8, 8)
    assert torch.equal(joined([logits], [(0, 0)]), logits)


def test_overlapping_windows_are_averaged_however_many_come_at_once() -> None:
    places = [(0, 0), (0, 4), (3, 0), (3, 4)]
    logits = torch.randn(4, 3, 8, 8)
    wanted, seen = torch.zeros(3, 11, 12), torch.zeros(11, 12)
    for window, (top, left) in zip(logits, places, strict=True):
        for y in range(8):
            for x in range(8):
                wanted[:, top + y, left + x] += window[:, y, x]
                seen[top + y, left + x] += 1
    for pieces in ([logits], [logits[:3], logits[3:]], logits.split(1)):
        torch.testing.assert_close(joined(pieces, places)[0], wanted / seen)


def test_masks_are_put_together_again() -> None:
    whole = torch.randint(0, 5, (8, 13), dtype=torch.uint8)
    whole[2, 3] = IGNORED
    parts = torch.stack([whole[:, :8], whole[:, 5:]])
    assert torch.equal(joined_masks(parts, [(0, 0), (0, 5)])[0], whole)
