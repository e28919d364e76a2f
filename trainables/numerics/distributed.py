"""Exchanges values between the processes (ranks) that train one Run together."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """One rank of a group of processes. A single process is a group too, and sends nothing.

    rank: in [0, size); size: number of processes; device: that this rank trains on.
    """

    rank: int
    size: int
    device: torch.device

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """Replace `value` by its sum over all ranks, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def share(self, samples: np.ndarray) -> np.ndarray:
        """Return this rank's part of a global batch, (N,) sample numbers: every `size`-th, so that
        parts differ by one sample at most."""
        return samples[self.rank :: self.size]

    def all_gather(self, value: Any) -> list[Any]:
        """Return every rank's value, in the order of ranks, on every rank. Values are pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's value on every rank. It is pickled."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, src=0)
        return values[0]


ALONE = World(0, 1, torch.device("cpu"))  # one process on the CPU


def data_parallel(model: nn.Module) -> nn.Module:
    """Wrap a model in DDP that sends no buffers: those of BatchNorm agree on all ranks anyway."""
    with warnings.catch_warnings():  # newer torch renames the argument
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False)
