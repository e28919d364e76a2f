"""Optimizers: the named one, with the configured values, over what learns and nothing else."""

import pytest
import torch

from trainables.engine.step import build_optimizer, set_hyperparameters
from trainables.training_config import TrainableConfig


def test_only_what_learns_is_given_to_the_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    (group,) = build_optimizer(TrainableConfig(dataset="d"), model).param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in model[1].parameters()}


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_configured_values_arrive(name, kind):
    config = TrainableConfig(dataset="d", optimizer=name, lr=0.3, weight_decay=0.2, momentum=0.1)
    optimizer = build_optimizer(config, torch.nn.Linear(1, 1))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.2)
    assert name == "adamw" or group["momentum"] == 0.1


def test_lars_scales_matrices_and_leaves_biases_and_batchnorm_alone():
    """Against the formulas of arXiv:1708.03888, two steps by hand in float64."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    config = TrainableConfig(dataset="d", optimizer="lars", lr=0.5, weight_decay=0.1, momentum=0.9)
    optimizer = build_optimizer(config, model)
    wanted = {name: p.detach().clone() for name, p in model.named_parameters()}
    speed = {name: torch.zeros_like(p) for name, p in wanted.items()}
    for step in range(2):
        optimizer.zero_grad()
        (model(torch.randn(8, 3).double()).square().sum() * (step + 1)).backward()
        for name, parameter in model.named_parameters():
            gradient, weight = parameter.grad, wanted[name]
            if weight.ndim > 1:
                gradient = gradient + 0.1 * weight
                gradient = gradient * 1e-3 * weight.norm() / gradient.norm()
            speed[name] = 0.9 * speed[name] + gradient
            wanted[name] = weight - 0.5 * speed[name]
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name])


def test_lars_equals_lightlys():
    theirs = pytest.importorskip("lightly.utils.lars").LARS
    torch.manual_seed(0)
    model, other = torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(3, 4, bias=False)
    other.load_state_dict(model.state_dict())
    config = TrainableConfig(dataset="d", optimizer="lars", lr=0.5, weight_decay=0.1, momentum=0.9)
    pair = [(model, build_optimizer(config, model)),
            (other, theirs(other.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1,
                           trust_coefficient=1e-3))]  # fmt: skip
    images = torch.randn(8, 3)
    for each, optimizer in pair * 3:
        optimizer.zero_grad()
        each(images).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(model.weight, other.weight)


def test_lars_goes_on_from_its_state():
    model = torch.nn.Linear(3, 4)
    config = TrainableConfig(dataset="d", optimizer="lars", lr=0.5)
    first, second = build_optimizer(config, model), build_optimizer(config, model)
    model(torch.ones(1, 3)).sum().backward()
    first.step()
    second.load_state_dict(first.state_dict())
    buffer = second.state[model.weight]["momentum_buffer"]
    assert torch.equal(buffer, first.state[model.weight]["momentum_buffer"]) and buffer.any()


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_values_are_set_on_the_way_as_if_they_had_been_built_in(name):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    first = TrainableConfig(dataset="d", optimizer=name, weight_decay=0.2, momentum=0.1)
    then = first.model_copy(update={"weight_decay": 0.3, "momentum": 0.4})
    optimizer, built = build_optimizer(first, model), build_optimizer(then, model)
    set_hyperparameters(optimizer, then)
    assert optimizer.state_dict() == built.state_dict()
