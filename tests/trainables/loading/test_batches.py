"""Every sample at its step, in the order that was asked for, and no thread left behind."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.datasets import DatasetConfig, read
from trainables.loading import decoded_cache as cache
from trainables.loading.batches import (
    BatchStream,
    evaluation_steps,
    training_steps,
    with_partners,
)
from trainables.loading.image_table import ImageTable, open_table

CPU = torch.device("cpu")
COUNT = 60


def table(count: int = COUNT) -> ImageTable:
    """Noise; label 7 i + 1 and a first pixel of i tell who is who."""
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    labels = np.arange(count, dtype=np.int64) * 7 + 1
    return ImageTable(images, labels, {}, ("a", "b"), 4, "none")  # type: ignore[arg-type]


def steps(*sizes: int) -> list[np.ndarray]:
    """Steps of these sizes over shuffled samples."""
    order = np.random.default_rng(1).permutation(COUNT)[: sum(sizes)]
    return np.split(order, np.cumsum(sizes)[:-1])


def stream(parts: Sequence[np.ndarray], samples: ImageTable | None = None) -> BatchStream:
    return BatchStream(samples or table(), parts, CPU)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


SIZES = {"count": st.integers(1, 200), "batch_size": st.integers(2, 64)}


@settings(deadline=None, max_examples=60)
@given(**SIZES, epoch=st.integers(0, 5))
def test_an_epoch_uses_no_sample_twice_and_leaves_out_only_a_partial_batch(
    count: int, batch_size: int, epoch: int
) -> None:
    indices = np.arange(count) * 3 + 5
    batches = training_steps(indices, batch_size, seed=0, epoch=epoch)
    used = np.concatenate(batches)
    assert len(set(used)) == len(used) and set(used) <= set(indices)
    if count < batch_size:
        assert [len(batch) for batch in batches] == [count]
    else:
        assert [len(batch) for batch in batches] == [batch_size] * (count // batch_size)


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int, batch_size: int = 8) -> list[int]:
        return np.concatenate(training_steps(np.arange(64), batch_size, seed, epoch)).tolist()

    np.random.seed(0)
    torch.manual_seed(0)
    first = order(0, 1)
    np.random.seed(1)
    torch.manual_seed(1)
    assert order(0, 1) == first != list(range(64))
    assert order(0, 1, batch_size=16) == first
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_each_epoch_leaves_out_other_samples_until_all_were_used() -> None:
    left_out = []
    for epoch in range(1, 30):
        used = np.concatenate(training_steps(np.arange(21), 8, 0, epoch))
        left_out.append(set(range(21)) - set(used))
    assert {len(missing) for missing in left_out} == {5}
    assert set.intersection(*left_out) == set()


@settings(deadline=None, max_examples=60)
@given(**SIZES)
def test_evaluation_takes_every_sample_once_in_order(count: int, batch_size: int) -> None:
    indices = np.arange(count)[::-1] + 2
    batches = evaluation_steps(indices, batch_size)
    assert np.concatenate(batches).tolist() == indices.tolist()
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


def test_batches_come_in_order_with_their_own_images_labels_and_numbers() -> None:
    samples, parts = table(), steps(8, 8, 3, 8, 1, 8, 8)
    received = list(stream(parts, samples))
    assert len(received) == len(parts)
    for part, (images, labels, rows) in zip(parts, received, strict=True):
        assert (images.dtype, labels.dtype, rows.dtype) == (torch.uint8, torch.int64, torch.int64)
        assert rows.tolist() == part.tolist()
        assert labels.tolist() == (part * 7 + 1).tolist()
        assert np.array_equal(images.numpy(), samples.images[part])


def test_a_batch_does_not_change_what_lies_in_the_table() -> None:
    samples = table()
    before = samples.images.copy()
    for images, labels, _ in stream(steps(8, 8), samples):
        images.zero_()
        labels.zero_()
    assert np.array_equal(samples.images, before)
    assert samples.labels[1] == 8


@pytest.mark.filterwarnings("error")
def test_a_mapped_read_only_table_streams_without_a_warning(tmp_path: Path) -> None:
    config = DatasetConfig(type="digits", limit=40)
    source = read(config, None)
    samples = open_table(cache.build(source, config, "0" * 16, tmp_path))
    part = samples.parts["train"]
    received = list(stream(evaluation_steps(part, 16), samples))
    images = torch.cat([batch[0] for batch in received])
    labels = torch.cat([batch[1] for batch in received])
    assert images.shape == (len(part), 3, 8, 8)
    for image, label, index in zip(images, labels, part, strict=True):
        decoded = np.asarray(source.decode(int(index))).transpose(2, 0, 1)
        assert np.array_equal(image.numpy(), decoded) and label == source.labels[index]


def test_an_empty_share_is_an_empty_batch_of_the_same_shape() -> None:
    parts = [np.arange(2), np.arange(0), np.arange(2, 3)]
    received = [(images.shape, len(rows)) for images, _, rows in stream(parts)]
    assert received == [((2, 3, 4, 4), 2), ((0, 3, 4, 4), 0), ((1, 3, 4, 4), 1)]


def test_no_steps_are_no_batches() -> None:
    before = threads()
    assert list(stream([])) == []
    assert threads() == before


def test_a_stream_can_be_read_again() -> None:
    batches = stream(steps(5, 5))
    first, second = ([rows.tolist() for _, _, rows in batches] for _ in range(2))
    assert first == second and len(first) == 2


@pytest.mark.parametrize("before_it", [0, 1, 9])
def test_an_error_of_the_reader_is_raised_in_the_consumer_at_its_place(before_it: int) -> None:
    bad = [*steps(*[4] * (before_it + 1))[:before_it], np.array([COUNT]), np.arange(4)]
    before, received = threads(), 0
    with pytest.raises(IndexError, match=f"index {COUNT} is out of bounds"):
        for _ in stream(bad):
            received += 1
    assert received == before_it
    assert threads() == before


@pytest.mark.parametrize("taken", [1, 5])
def test_no_thread_is_left_when_the_consumer_stops_early(taken: int) -> None:
    before = threads()
    for number, _ in enumerate(stream(steps(*[1] * 40)), start=1):
        if number == taken:
            break
    assert threads() == before


def test_no_thread_is_left_when_the_consumer_fails() -> None:
    before = threads()
    with pytest.raises(ZeroDivisionError):
        for images, _, _ in stream(steps(*[1] * 40)):
            len(images) // 0
    assert threads() == before


def test_only_a_few_batches_are_read_ahead() -> None:
    asked: list[int] = []

    class Counting(np.ndarray):
        def __getitem__(self, key: object) -> object:
            asked.append(1)
            return np.asarray(self)[key]  # type: ignore[index]

    samples = table()
    object.__setattr__(samples, "images", samples.images.view(Counting))
    batches = iter(stream(steps(*[1] * 40), samples))
    next(batches)
    threading.Event().wait(0.2)  # as long as it likes
    assert 1 <= len(asked) <= 5
    assert len(list(batches)) == 39 and len(asked) == 40


def test_waiting_for_input_is_counted() -> None:
    batches = stream(steps(4, 4))
    assert batches.waited == 0
    list(batches)
    assert batches.waited > 0


def test_a_partner_depends_on_seed_epoch_and_sample_alone() -> None:
    train = np.arange(100, 160)
    rows, samples = train[::-1].copy(), replace(table(), parts={"train": train})
    (paired,) = with_partners([rows], samples, 0, 1)
    assert np.array_equal(paired[:60], rows) and set(paired[60:]) <= set(train)
    assert len(set(paired[60:])) > 25  # of 60 drawn with replacement about 38 differ
    _, mine = with_partners([rows[::2], rows[1::2]], samples, 0, 1)  # the second of two workers
    assert np.array_equal(mine[30:], paired[61::2])
    for other in ((1, 1), (0, 2)):
        assert not np.array_equal(with_partners([rows], samples, *other)[0], paired)
