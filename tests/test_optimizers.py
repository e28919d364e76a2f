"""Optimizers: the named one, with the configured values, over what learns and nothing else."""

import pytest
import torch

from trainables.config import TrainableConfig
from trainables.optimizers import build_optimizer


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
