"""This process among those that train one Run together, and what they do as one."""

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
    """A rank of a group of processes; of one alone, too, and then nothing is sent."""

    rank: int
    size: int
    device: torch.device

    def total(self, value: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def share(self, samples: np.ndarray) -> np.ndarray:
        """This rank's part of a global batch; parts differ by one sample at most."""
        return samples[self.rank :: self.size]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank."""
        found: list[Any] = [None] * self.size
        if self.size == 1:
            return [value]
        dist.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """Rank 0's value on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]


ALONE = World(0, 1, torch.device("cpu"))  # one process on the CPU


def data_parallel(model: nn.Module) -> nn.Module:
    """DDP that leaves buffers alone: BatchNorm's are the same on every rank already."""
    with warnings.catch_warnings():  # newer torch has another name for the argument; older has not
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False)
