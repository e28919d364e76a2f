"""Images of one data set that another one trains on are found in its validation and test."""

import numpy as np
from PIL import Image

from trainables.contents.leaks import judging, leaks
from trainables.data.contract import Source


def source(train: int, val: int, test: int) -> Source:
    """Images without content, named by their number."""
    edges = np.cumsum([0, train, val, test])
    rows = [np.arange(low, high) for low, high in zip(edges[:-1], edges[1:], strict=True)]
    parts = dict(zip(("train", "val", "test"), rows, strict=True))
    names = [f"{number}" for number in range(edges[-1])]
    labels = np.full(len(names), -1)
    return Source((), names, labels, parts, [], lambda index: Image.new("RGB", (1, 1)))


def test_only_training_images_leak_and_only_into_validation_and_test() -> None:
    child, parent = source(2, 2, 2), source(3, 1, 1)
    hashes = ("t1", "t2", "v1", "v2", "e1", "e2")
    learned = ("t1", "v2", "e1", "v1", "e2")  # v1 and e2: in its own validation and test
    found = {leak.part: (leak.pairs, leak.total) for leak in leaks(child, hashes, parent, learned)}
    assert found == {"val": ([("3", "1")], 2), "test": ([("4", "2")], 2)}
    assert judging(child, hashes) == {"v1": "2", "v2": "3", "e1": "4", "e2": "5"}


def test_images_that_are_no_copies_do_not_leak() -> None:
    child, parent = source(1, 1, 1), source(1, 1, 1)
    assert leaks(child, ("", "", ""), parent, ("", "", "")) == []
    assert judging(child, ("", "", "")) == {}
