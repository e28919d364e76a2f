"""Watched images are found by their names."""

import numpy as np
import pytest

from trainables.data.watched import watched_rows
from trainables.dataset import DataError

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
