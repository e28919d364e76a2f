"""One matrix over all pixels: the same at any batch size and on any number of ranks, and as counted
by hand."""

import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.dataset import IGNORED
from trainables.monitoring.iou import class_accuracy, class_iou, confusion, mean_iou, scattered

CLASSES = 4
SHAPE = (5, 6, 7)  # images, rows, columns
TRUTH = arrays.arrays(np.uint8, SHAPE, elements=st.sampled_from([*range(CLASSES), IGNORED]))
GUESS = arrays.arrays(np.uint8, SHAPE, elements=st.integers(0, CLASSES - 1))


def by_hand(guess: np.ndarray, truth: np.ndarray) -> list[float]:
    """IoU of each class, pixel by pixel."""
    found = []
    for label in range(CLASSES):
        both = either = present = 0
        for mine, theirs in zip(guess.flat, truth.flat, strict=True):
            if theirs == IGNORED:
                continue
            both += mine == label and theirs == label
            either += mine == label or theirs == label
            present += theirs == label
        found.append(both / either if present else math.nan)
    return found


@settings(deadline=None)  # a busy machine is no fault
@given(GUESS, TRUTH)
def test_iou_is_what_counting_by_hand_gives(guess: np.ndarray, truth: np.ndarray) -> None:
    matrix = confusion(torch.from_numpy(guess), torch.from_numpy(truth), CLASSES)
    wanted = by_hand(guess, truth)
    assert np.allclose(class_iou(matrix).numpy(), wanted, equal_nan=True, rtol=0, atol=1e-12)
    present = [value for value in wanted if not math.isnan(value)]
    if present:
        assert mean_iou(matrix) == pytest.approx(sum(present) / len(present), abs=1e-12)
    else:
        assert math.isnan(mean_iou(matrix))


@settings(deadline=None)  # a busy machine is no fault
@given(GUESS, TRUTH, st.integers(1, 5))
def test_parts_add_up_to_the_whole(guess: np.ndarray, truth: np.ndarray, parts: int) -> None:
    mine, theirs = torch.from_numpy(guess), torch.from_numpy(truth)
    whole = confusion(mine, theirs, CLASSES)
    pieces = zip(mine.tensor_split(parts), theirs.tensor_split(parts), strict=True)
    assert torch.equal(sum(confusion(*piece, CLASSES) for piece in pieces), whole)
    assert whole.dtype == torch.int64
    assert int(whole.sum()) == int((theirs != IGNORED).sum())


def test_ignored_pixels_are_out_by_the_truth_and_not_by_the_guess() -> None:
    truth = torch.tensor([[0, 1, IGNORED, IGNORED]])
    assert confusion(torch.tensor([[0, 1, 0, 1]]), truth, 2).tolist() == [[1, 0], [0, 1]]
    assert confusion(torch.tensor([[1, 1, 1, 0]]), truth, 2).tolist() == [[0, 1], [0, 1]]


def test_an_absent_class_is_not_zero_and_not_in_the_mean() -> None:
    matrix = confusion(torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]), 3)
    iou = class_iou(matrix).tolist()
    assert iou[:2] == [1.0, 0.5] and math.isnan(iou[2])
    assert mean_iou(matrix) == 0.75
    assert class_accuracy(matrix)[:2].tolist() == [1.0, 0.5]
    assert math.isnan(class_accuracy(matrix)[2])


def test_what_a_gpu_counts_is_what_a_cpu_counts() -> None:
    numbers = torch.randint(0, 7, (200,), generator=torch.Generator().manual_seed(0))
    numbers = numbers[numbers != 3]  # one that is not there
    assert torch.equal(scattered(numbers, 9), torch.bincount(numbers, minlength=9))
    counts = confusion(torch.zeros(2, 2, device="meta"), torch.zeros(2, 2, device="meta"), 3)
    assert counts.shape == (3, 3) and counts.dtype == torch.int64  # nothing was read
