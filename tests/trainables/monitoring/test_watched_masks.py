"""Watched images are found by their names; masks are those of the network at that moment."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tests.trainables.tasks.test_segment import CLASSES, SIDE, build
from trainables.dataset import DataError
from trainables.loading.image_table import ImageTable
from trainables.monitoring.watched_masks import watched_masks, watched_rows

NAMES = ["train/0001_sat.jpg", "train/0013_sat.jpg", "val/0062_sat.jpg", "val/0104_sat.jpg",
         "val/0105_sat.jpg", "val/0106_sat.jpg"]  # fmt: skip
VALIDATION = np.array([2, 3, 4, 5])


def test_without_names_the_first_three_of_validation_are_watched() -> None:
    assert watched_rows(NAMES, VALIDATION, []).tolist() == [2, 3, 4]


def test_images_are_watched_by_name_in_the_order_given() -> None:
    assert watched_rows(NAMES, VALIDATION, ["0104", "0013"]).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0014"], r"no image '0014' to watch \(did you mean '0104'"),
        (["roof"], "no image 'roof' to watch$"),
    ],
)
def test_a_name_that_no_image_has_is_answered_with_the_nearest(names, message) -> None:
    with pytest.raises(DataError, match=message):
        watched_rows(NAMES, VALIDATION, names)


def test_of_two_images_of_one_name_the_one_that_is_held_out_is_meant() -> None:
    names = [*NAMES, "val/0013_sat.jpg"]
    assert watched_rows(names, VALIDATION, ["0013"], held_out=[2, 3, 4, 5, 6]).tolist() == [6]
    assert watched_rows(names, VALIDATION, ["train/0013", "val/0013"]).tolist() == [1, 6]


def test_a_name_that_may_be_either_of_two_is_refused_with_both() -> None:
    with pytest.raises(DataError, match="may be train/0001, val/0001: name one of them"):
        watched_rows([*NAMES, "val/0001_sat.jpg"], VALIDATION, ["0001"])


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
