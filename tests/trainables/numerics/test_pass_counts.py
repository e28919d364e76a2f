"""BatchNorm whose passes are counted in Python is the same layer, bit for bit."""

import copy

import pytest
import torch
from torch import nn

from trainables.numerics.pass_counts import PassCounts
from trainables.numerics.sync_batchnorm import RankBatchNorm2d


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 6),
        nn.BatchNorm1d(6, affine=False),
    )  # fmt: skip


def steps(model: nn.Module, counts: PassCounts | None) -> list[torch.Tensor]:
    """Two steps of three passes each, an evaluation between them. Returns all gradients."""
    gradients = []
    for step in range(2):
        model.train()
        model.zero_grad()
        for number in range(3):
            values = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(number))
            model(values).square().sum().backward()
        if counts is not None:
            counts.add()
        gradients += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.eval()
        gradients.append(model(torch.full((2, 3, 8, 8), float(step))).detach())
    return gradients


def test_training_gives_the_same_weights_statistics_and_numbers_of_passes() -> None:
    plain, counted = network(), network()
    found, wanted = steps(counted, PassCounts(counted)), steps(plain, None)
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))
    state, other = counted.state_dict(), plain.state_dict()
    assert list(state) == list(other)
    assert all(torch.equal(state[name], other[name]) for name in other)
    assert int(state["1.num_batches_tracked"]) == 6
    assert str(counted) == str(plain)  # the key of kept features has it
    copied = copy.deepcopy(counted)
    copied.load_state_dict(plain.state_dict())
    assert torch.equal(copied.eval()(torch.ones(2, 3, 8, 8)), plain(torch.ones(2, 3, 8, 8)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(3, momentum=None),  # its statistics need the number
        nn.BatchNorm2d(3, track_running_stats=False),
        RankBatchNorm2d(3),
        nn.InstanceNorm2d(3),
    ],
)
def test_other_layers_stay_as_they_are(layer: nn.Module) -> None:
    kind, plain = type(layer), copy.deepcopy(layer)
    counts = PassCounts(nn.Sequential(layer))
    assert type(layer) is kind
    if kind is not RankBatchNorm2d:  # which needs other ranks
        values = torch.randn(4, 3, 2, 2)
        assert torch.equal(layer(values), plain(values))
        counts.add()
        state, other = layer.state_dict(), plain.state_dict()
        assert all(torch.equal(state[name], other[name]) for name in other)
