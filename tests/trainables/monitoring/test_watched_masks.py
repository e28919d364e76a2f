"""Masks of watched images are those of the network at that moment."""

from contextlib import nullcontext

import numpy as np
import torch

from tests.trainables.tasks.test_segment import CLASSES, SIDE, build
from trainables.loading.image_table import ImageTable
from trainables.monitoring.watched_masks import watched_masks


def test_masks_are_what_the_network_says_of_the_whole_image() -> None:
    trainable = build()
    generator = np.random.default_rng(0)
    table = ImageTable(
        images=generator.integers(0, 256, (4, 3, SIDE, SIDE), dtype=np.uint8),  # type: ignore[arg-type]
        labels=np.full(4, -1),
        parts={"val": np.arange(4)},
        classes=CLASSES,
        size=SIDE,
        fingerprint="f",
        masks=generator.integers(0, 2, (4, SIDE, SIDE), dtype=np.uint8),  # type: ignore[arg-type]
        names=("a", "b", "c", "d"),
        colours=((1, 2, 3), (4, 5, 6)),
    )
    rows = np.array([3, 1])
    kept = watched_masks(trainable, table, rows, torch.device("cpu"), nullcontext)
    assert kept["names"].tolist() == ["d", "b"] and kept["classes"].tolist() == list(CLASSES)
    assert np.array_equal(kept["truth"], table.masks[rows])
    assert np.array_equal(kept["images"][0].transpose(2, 0, 1), table.images[3])
    assert kept["colours"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert kept["predicted"].shape == (2, SIDE, SIDE) and kept["predicted"].max() < 2
