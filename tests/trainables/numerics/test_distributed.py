"""Ranks share samples out without loss and agree on what they hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from tests.conftest import ALONE
from trainables.numerics.distributed import World


def test_one_process_is_a_world_of_its_own():
    value = torch.tensor([1, 2])
    assert ALONE.all_reduce_sum(value) is value
    assert ALONE.all_gather("x") == ["x"]
    assert ALONE.broadcast("x") == "x"
    assert ALONE.share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 7, 10])
def test_every_sample_has_one_rank_and_parts_differ_by_one(size: int, count: int):
    worlds = [World(rank, size, torch.device("cpu")) for rank in range(size)]
    parts = [world.share(np.arange(count)) for world in worlds]
    assert sorted(np.concatenate(parts)) == list(range(count))
    lengths = {len(part) for part in parts}
    assert max(lengths) - min(lengths) <= 1


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    found = {
        "total": world.all_reduce_sum(torch.tensor([2**40 + rank])),  # too large for float32
        "gather": world.all_gather({"rank": rank}),
        "first": world.broadcast(f"of {rank}"),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_add_gather_and_listen_to_the_first(tmp_path: Path):
    multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["total"].tolist() == [2**41 + 1]
        assert found["gather"] == [{"rank": 0}, {"rank": 1}]
        assert found["first"] == "of 0"
