"""Decides which samples form which batch, and reads batches ahead of the training device."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from trainables.loading.image_table import ImageTable
from trainables.numerics.distributed import World
from trainables.numerics.randomness import permutation, uniform
from trainables.numerics.seeds import derived_seed

_AHEAD = 3  # batches read in advance


def training_steps(indices: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the samples of every optimizer step of an epoch, in an order by (seed, epoch).

    indices: (N,) sample numbers. A last batch that is not full is left out of this epoch, unless
    it is the only one: each epoch leaves out other samples.
    """
    order = indices[permutation(len(indices), "order", seed, epoch).numpy()]
    full = max(len(order) - len(order) % batch_size, min(batch_size, len(order)))
    return [order[i : i + batch_size] for i in range(0, full, batch_size)]


def with_partners(
    shares: Sequence[np.ndarray], table: ImageTable, seed: int, epoch: int
) -> list[np.ndarray]:
    """Return each share (N,) of row numbers with a partner for each row behind it, (2 N,): any
    training sample, drawn by (seed, epoch, row)."""
    train, seed = table.parts["train"], derived_seed("partner", seed)
    mixed = []
    for rows in shares:
        drawn = uniform(seed, epoch, torch.from_numpy(rows), 1)[:, 0].numpy().astype(np.float64)
        mixed.append(np.concatenate([rows, train[(drawn * len(train)).astype(np.int64)]]))
    return mixed


def evaluation_steps(indices: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Return every sample once, in order, `batch_size` at a time."""
    return [indices[i : i + batch_size] for i in range(0, len(indices), batch_size)]


def evaluation_shares(
    table: ImageTable, split: str, at_once: int, world: World
) -> list[np.ndarray]:
    """Return the rows of a split that this rank evaluates, a batch each.

    at_once: images of a batch over all ranks. Where images lie in windows, a batch has all windows
    of one image; at the end some ranks get an empty one, so that all have as many.
    """
    rows = table.parts[split]
    if table.windows is None:
        return [world.share(step) for step in evaluation_steps(rows, at_once)]
    images = table.of_images(rows)
    images += [rows[:0]] * (-len(images) % world.size)
    return images[world.rank :: world.size]


class BatchStream:
    """Iterates over (images, labels, indices) on `device`, read ahead by a thread.

    images: (B, 3, S, S) uint8 in [0, 255]; labels and indices: (B,) int64; where the table has
    masks, labels are (B, S, S) uint8. `waited` counts the seconds that the consumer waited for
    input. An error of the reading thread is raised in the consumer.
    """

    def __init__(
        self, table: ImageTable, steps: Sequence[np.ndarray], device: torch.device
    ) -> None:
        self.waited = 0.0
        self._table, self._steps, self._device = table, steps, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        ready: queue.Queue[tuple[Tensor, ...] | BaseException] = queue.Queue(_AHEAD)
        stop = threading.Event()
        reader = threading.Thread(target=self._read, args=(ready, stop), daemon=True)
        reader.start()
        try:
            for _ in self._steps:
                started = time.perf_counter()
                item = ready.get()
                self.waited += time.perf_counter() - started
                if isinstance(item, BaseException):
                    raise item
                images, labels, rows = (t.to(self._device, non_blocking=True) for t in item)
                yield images, labels, rows
        finally:
            stop.set()
            while reader.is_alive():  # a reader that waits for a free place must see `stop`
                _drain(ready)
                reader.join(0.01)

    def _read(
        self, ready: "queue.Queue[tuple[Tensor, ...] | BaseException]", stop: threading.Event
    ) -> None:
        try:
            for step in self._steps:
                if stop.is_set():
                    return
                ready.put(self._gather(step))
        except BaseException as error:  # handed to the consumer, which raises it
            ready.put(error)

    def _gather(self, step: np.ndarray) -> tuple[Tensor, ...]:
        masks = self._table.masks
        tensors = (
            torch.from_numpy(self._table.images[step]),
            torch.from_numpy((self._table.labels if masks is None else masks)[step]),
            torch.from_numpy(step.astype(np.int64)),
        )
        if self._device.type == "cuda":
            return tuple(tensor.pin_memory() for tensor in tensors)
        return tensors


def _drain(items: "queue.Queue[tuple[Tensor, ...] | BaseException]") -> None:
    try:
        while True:
            items.get_nowait()
    except queue.Empty:
        return
