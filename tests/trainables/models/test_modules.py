"""The moving average of weights: the same numbers in few operations, and after a resume."""

import torch
from torch import nn

from trainables.models.modules import AveragedModel, Model


def model(seed: int) -> AveragedModel:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    return AveragedModel(Model(encoder, nn.Linear(4 * 36, 2).double()))


@torch.no_grad()
def follow_by_tensor(average: AveragedModel, decay: float) -> None:
    steps = average.get_buffer("steps").add_(1)
    moved = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
    new = average.trained.state_dict()
    for name, value in average.state_dict().items():
        if name in new and value.is_floating_point():
            value.lerp_(new[name], moved.to(value.dtype))
        elif name in new:
            value.copy_(new[name])


def test_all_weights_at_once_follow_as_each_does_bit_for_bit() -> None:
    """Beyond the first steps, whose decay is smaller, and with a state loaded on the way."""
    found, wanted = model(0), model(0)
    for step in range(24):
        generator = torch.Generator().manual_seed(step)
        for one in (found, wanted):
            for parameter in one.trained.parameters():
                noise = torch.randn(parameter.shape, generator=generator.manual_seed(step))
                parameter.data.add_(noise)
            one.trained.encoder[1].num_batches_tracked += 1
        found.follow(0.6)
        follow_by_tensor(wanted, 0.6)
        if step == 11:
            state = found.state_dict()
            found = model(1)
            found.load_state_dict(state)
    state, other = found.state_dict(), wanted.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in other)
    assert int(state["steps"]) == 24 and int(state["encoder.1.num_batches_tracked"]) == 24
    assert not torch.equal(state["encoder.0.weight"], model(0).state_dict()["encoder.0.weight"])
