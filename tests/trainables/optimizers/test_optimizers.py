"""Optimizers: the named one, with the configured values, over what learns and nothing else."""

from typing import Any

import pytest
import torch

from trainables.engine.step import build_optimizer, set_hyperparameters, set_rate
from trainables.models.encoders import build_encoder
from trainables.models.modules import Model
from trainables.optimizers.lars import Lars
from trainables.training_config import TrainableConfig


def test_only_what_learns_is_given_to_the_optimizer():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    groups = build_optimizer(TrainableConfig(dataset="d"), model).param_groups
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in model[1].parameters())


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_configured_values_arrive(name, kind):
    config = TrainableConfig(dataset="d", optimizer=name, lr=0.3, weight_decay=0.2, momentum=0.1)
    optimizer = build_optimizer(config, torch.nn.Linear(1, 1))
    assert type(optimizer) is kind
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (0.3, 0.2),  # the weight
        (0.3, 0.0),  # the bias
    ]
    assert name == "adamw" or {group["momentum"] for group in optimizer.param_groups} == {0.1}
    if name != "lars":
        config = config.model_copy(update={"decayed": "all"})
        (group,) = build_optimizer(config, torch.nn.Linear(1, 1)).param_groups
        assert len(group["params"]) == 2 and group["weight_decay"] == 0.2


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


def step_by_tensor(optimizer: Lars, speeds: dict[torch.Tensor, torch.Tensor]) -> None:
    """A step of LARS, one tensor after the other."""
    with torch.no_grad():
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                gradient = weight.grad.add(weight, alpha=group["weight_decay"])
                if group["trust"] is not None:
                    size, slope = weight.norm(), gradient.norm()
                    known = (size > 0) & (slope > 0)
                    gradient = gradient * torch.where(known, group["trust"] * size / slope, 1.0)
                speeds.setdefault(weight, torch.zeros_like(weight))
                speeds[weight].mul_(group["momentum"]).add_(gradient)
                weight.sub_(speeds[weight], alpha=group["lr"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_lars_of_all_tensors_at_once_is_that_of_each_bit_for_bit(layout: torch.memory_format):
    """With a weight of zeros, one without a gradient, and a state that was loaded on the way."""
    config = TrainableConfig(dataset="d", optimizer="lars", lr=0.3, weight_decay=1e-3)
    pair = [small_resnet().to(memory_format=layout) for _ in range(2)]
    first, by_tensor = (build_optimizer(config, model) for model in pair)
    speeds: dict[torch.Tensor, torch.Tensor] = {}
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for model in pair:
        model.head.weight.data.zero_()
    for step in range(3):
        for model in pair:
            model.zero_grad()
            model(images * (step + 1)).square().sum().backward()
            if step == 1:
                model.encoder.conv1.weight.grad = None
        first.step()
        step_by_tensor(by_tensor, speeds)
        again = build_optimizer(config, pair[0])
        again.load_state_dict(first.state_dict())
        first = again
    for one, two in zip(pair[0].parameters(), pair[1].parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(first.state[one]["momentum_buffer"], speeds[two])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_values_are_set_on_the_way_as_if_they_had_been_built_in(name):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    first = TrainableConfig(dataset="d", optimizer=name, weight_decay=0.2, momentum=0.1)
    then = first.model_copy(update={"weight_decay": 0.3, "momentum": 0.4})
    optimizer, built = build_optimizer(first, model), build_optimizer(then, model)
    set_hyperparameters(optimizer, then)
    assert optimizer.state_dict() == built.state_dict()


# of ResNet's parameters: the beginning of their name, and their distance from the head
DEPTHS = {"head": 0, "encoder.layer4": 1, "encoder.layer3": 2, "encoder.layer2": 3,
          "encoder.layer1": 4, "encoder.bn1": 5, "encoder.conv1": 5}  # fmt: skip


def small_resnet() -> Model:
    torch.manual_seed(0)
    encoder, width = build_encoder("resnet10_slim", small_input=True)
    return Model(encoder, torch.nn.Linear(width, 3))


def groups_by_hand(model: Model, rate: float, decay: float) -> list[dict[str, Any]]:
    """A group for each parameter: head 1, backbone 0.5, each layer 0.8 of the one above it."""
    groups = []
    for name, parameter in model.named_parameters():
        (depth,) = {depth for start, depth in DEPTHS.items() if name.startswith(start + ".")}
        factor = 0.5 * 0.8**depth if depth else 1.0
        matrix = parameter.ndim > 1
        group = {"params": [parameter], "lr": rate * factor, "weight_decay": decay * matrix}
        groups.append(group | {"trust": 1e-3 if matrix else None})
    return groups


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_steps_with_rates_of_layers_are_those_of_groups_made_by_hand(name: str) -> None:
    """Bit for bit, with a schedule and a change of weight decay on the way."""
    settings = {"optimizer": name, "backbone_lr_factor": 0.5, "layer_lr_decay": 0.8}
    config = TrainableConfig(dataset="d", lr=0.3, weight_decay=0.2, **settings)
    model, other = small_resnet(), small_resnet()
    optimizer = build_optimizer(config, model)
    by_hand = {
        "sgd": lambda groups: torch.optim.SGD(without_trust(groups), momentum=0.9),
        "adamw": lambda groups: torch.optim.AdamW(without_trust(groups)),
        "lars": lambda groups: Lars(groups, lr=1.0, momentum=0.9),
    }[name](groups_by_hand(other, 0.3, 0.2))
    images = torch.randn(4, 3, 16, 16)
    for rate, decay in [(0.3, 0.2), (0.1, 0.2), (0.05, 0.4)]:
        set_hyperparameters(optimizer, config.model_copy(update={"weight_decay": decay}))
        set_rate(optimizer, rate)
        for group, wanted in zip(
            by_hand.param_groups, groups_by_hand(other, rate, decay), strict=True
        ):
            group |= {"lr": wanted["lr"], "weight_decay": wanted["weight_decay"]}
        for each, stepper in ((model, optimizer), (other, by_hand)):
            stepper.zero_grad()
            each(images).square().sum().backward()
            stepper.step()
    for (parameter, wanted), start in zip(
        zip(model.parameters(), other.parameters(), strict=True),
        small_resnet().parameters(),
        strict=True,
    ):
        assert torch.equal(parameter, wanted) and not torch.equal(parameter, start)


def without_trust(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: v for name, v in group.items() if name != "trust"} for group in groups]


def test_a_frozen_layer_has_no_group_and_a_factor_of_one_none_of_its_own():
    model = small_resnet()
    model.encoder.conv1.requires_grad_(False)
    config = TrainableConfig(dataset="d", backbone_lr_factor=0.1)
    groups = build_optimizer(config, model).param_groups
    assert sorted(group["lr"] / 0.05 for group in groups) == pytest.approx([0.1, 0.1, 1.0, 1.0])
    assert all(model.encoder.conv1.weight is not p for group in groups for p in group["params"])
    plain = build_optimizer(TrainableConfig(dataset="d", decayed="all"), model).state_dict()
    assert len(plain["param_groups"]) == 1 and "rate_factor" not in plain["param_groups"][0]


def test_lars_refuses_to_decay_all():
    with pytest.raises(ValueError, match="'lars' never decays biases"):
        TrainableConfig(dataset="d", optimizer="lars", decayed="all")
