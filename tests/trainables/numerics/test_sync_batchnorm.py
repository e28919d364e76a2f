"""Two real gloo ranks with uneven shares are one BatchNorm over the whole batch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from trainables.models.encoders import build_encoder
from trainables.numerics.sync_batchnorm import RankBatchNorm2d, synchronize

CPU = torch.device("cpu")
CHANNELS, STEPS = 4, 2
Ranks = list[dict[str, dict[str, Tensor]]]  # of each rank, by case, by what


@dataclass(frozen=True)
class Case:
    """How 8 images are shared out, where their values lie, and BatchNorm's own settings."""

    cut: int = 3
    offset: float = 2.0
    momentum: float | None = 0.1
    dtype: torch.dtype = torch.float32
    flat: bool = False  # (B, C), as in a projector


CASES = {
    "3 and 5": Case(),
    "4 and 4": Case(cut=4),
    "none and 8": Case(cut=0),
    "cumulative average": Case(momentum=None),
    "values far from zero": Case(offset=30.0),
    "bfloat16": Case(dtype=torch.bfloat16),
    "vectors": Case(flat=True),
    "one vector and 7": Case(cut=1, flat=True),
}
TOLERANCE = {"values far from zero": 1e-3, "bfloat16": 0.02}


def data(case: Case) -> tuple[Tensor, Tensor]:
    """(8, C, 3, 5) images, or (8, C) vectors, of every channel's own mean and spread, and a weight
    for each output."""
    generator = torch.Generator().manual_seed(0)
    shape = (8, CHANNELS) if case.flat else (8, CHANNELS, 3, 5)
    scale = torch.arange(1, CHANNELS + 1).view(1, -1, *[1] * (len(shape) - 2))
    images = torch.randn(shape, generator=generator) * scale + case.offset * scale
    return images.to(case.dtype), torch.randn(shape, generator=generator)


def layer(case: Case) -> nn.Module:
    kind = nn.BatchNorm1d if case.flat else nn.BatchNorm2d
    norm = kind(CHANNELS, momentum=case.momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0, 3.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 2.0, -1.0]))
    return nn.Sequential(norm)


def two_steps(model: nn.Module, images: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Outputs and gradients of two passes, and the state after them."""
    found: dict[str, Tensor] = {}
    for step in range(STEPS):
        given = (images * (step + 1)).requires_grad_()
        output = model(given)
        (output.float() * weights).sum().backward()
        assert given.grad is not None
        found |= {f"output {step}": output.detach(), f"input gradient {step}": given.grad}
    gradients = {f"gradient of {n}": p.grad for n, p in model.named_parameters()}
    return found | gradients | dict(model.state_dict())  # type: ignore[operator]


def rank_main(rank: int, folder: str) -> None:
    """One of two processes: its share of every case; the results are saved for the test."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    results = {}
    for name, case in CASES.items():
        images, weights = data(case)
        mine = slice(0, case.cut) if rank == 0 else slice(case.cut, None)
        results[name] = two_steps(synchronize(layer(case), CPU), images[mine], weights[mine])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(rank_main, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def close(given: Tensor, wanted: Tensor, name: str) -> bool:
    tolerance = TOLERANCE.get(name, 1e-5)
    size = float(wanted.float().abs().max())
    return torch.allclose(given.float(), wanted.float(), rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_input_gradients_are_those_of_the_whole_batch(name: str, ranks: Ranks) -> None:
    whole = two_steps(layer(CASES[name]), *data(CASES[name]))
    first, second = (rank[name] for rank in ranks)
    for what in [key for key in whole if key.startswith(("output", "input gradient"))]:
        joined = torch.cat([first[what], second[what]])
        assert joined.dtype == whole[what].dtype
        assert close(joined, whole[what], name), what


@pytest.mark.parametrize("name", CASES)
def test_parameter_gradients_of_the_ranks_add_up_to_those_of_the_whole(
    name: str, ranks: Ranks
) -> None:
    whole = two_steps(layer(CASES[name]), *data(CASES[name]))
    first, second = (rank[name] for rank in ranks)
    for what in [key for key in whole if key.startswith("gradient of")]:
        assert close(first[what] + second[what], whole[what], name), what


@pytest.mark.parametrize("name", CASES)
def test_both_ranks_keep_the_running_statistics_of_the_whole(name: str, ranks: Ranks) -> None:
    whole = two_steps(layer(CASES[name]), *data(CASES[name]))
    for what in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        first, second = (rank[name][what] for rank in ranks)
        assert torch.equal(first, second), what
        assert close(first, whole[what], name), what
    assert int(whole["0.num_batches_tracked"]) == STEPS


def test_uneven_shares_are_not_what_each_rank_alone_would_give(ranks: Ranks) -> None:
    images, weights = data(CASES["3 and 5"])
    alone = two_steps(layer(CASES["3 and 5"]), images[:3], weights[:3])
    for what in ("output 0", "input gradient 0", "0.running_var"):
        assert not close(ranks[0]["3 and 5"][what], alone[what], "3 and 5")


def test_synchronise_keeps_names_state_and_the_parameters_themselves() -> None:
    encoder, _ = build_encoder("resnet18", small_input=True)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    learnt = [id(parameter) for parameter in encoder.parameters()]
    converted = synchronize(encoder, CPU)
    after = converted.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [id(parameter) for parameter in converted.parameters()] == learnt


def test_synchronise_replaces_every_batchnorm_once() -> None:
    encoder, _ = build_encoder("resnet18", small_input=True)
    count = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    for _ in range(2):
        encoder = synchronize(encoder, CPU)
        kinds = [type(m) for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
        assert kinds == [RankBatchNorm2d] * count and count == 20


@pytest.mark.parametrize("run", [lambda m, x: m(x), lambda m, x: m(x.bfloat16()).float()])
def test_evaluation_is_plain_batchnorm_and_needs_no_other_rank(
    run: Callable[[nn.Module, Tensor], Any],
) -> None:
    images, _ = data(Case())
    plain = layer(Case())
    plain(images)
    both = [plain.eval(), synchronize(layer(Case()), CPU).eval()]
    both[1].load_state_dict(plain.state_dict())
    before = {name: value.clone() for name, value in both[1].state_dict().items()}
    assert torch.equal(run(both[0], images), run(both[1], images))
    assert all(torch.equal(both[1].state_dict()[name], before[name]) for name in before)
    assert not torch.equal(before["0.running_mean"], torch.zeros(CHANNELS))
