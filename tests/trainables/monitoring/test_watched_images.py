"""Masks of watched images are those of the network at that moment; views are those of training."""

from contextlib import nullcontext

import numpy as np
import torch

from tests.trainables.tasks.test_segment import CLASSES, SIDE, build
from trainables.dataset import DataInfo
from trainables.loading.image_table import ImageTable
from trainables.monitoring.watched_images import training_views, watched_masks
from trainables.tasks.registry import TRAINABLES
from trainables.trainable import Batch
from trainables.transforms.geometry import standardize


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


def test_views_are_those_that_a_training_without_labels_compares() -> None:
    kind, side = TRAINABLES["byol"], 16
    config = kind.Config.model_validate(
        {"dataset": "t", "backbone": "resnet10_slim", "small_input": True, "view_size": 12}
    )
    trainable = kind(config, DataInfo(("a", "b"), side))
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (20, 3, side, side), dtype=np.uint8)
    parts = {"train": np.arange(19, 3, -1), "val": np.arange(4)}
    table = ImageTable(images, np.zeros(20, np.int64), parts, ("a", "b"), side, "f")  # type: ignore[arg-type]
    state = torch.get_rng_state()
    kept = training_views(trainable, table, 3, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(kept["images"], images[4:12].transpose(0, 2, 3, 1))
    rows = torch.arange(4, 12)
    views = trainable._views(Batch(torch.from_numpy(images[4:12]), rows * 0, rows, 0, 3))  # type: ignore[attr-defined]
    for name, view in zip(("one", "two"), views, strict=True):
        assert kept[name].shape == (8, 12, 12, 3) and kept[name].dtype == np.uint8
        again = standardize(torch.from_numpy(kept[name]).permute(0, 3, 1, 2) / 255)
        assert torch.allclose(again, view, atol=0.5 / 255 / 0.22 + 1e-3)
    assert not np.array_equal(kept["one"], kept["two"])
    later = training_views(trainable, table, 4, torch.device("cpu"))
    assert np.array_equal(later["images"], kept["images"])
    assert not np.array_equal(later["one"], kept["one"])
