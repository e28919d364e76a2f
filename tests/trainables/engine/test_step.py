"""A batch in parts gives the gradient of the whole (on two ranks: test_worker)."""

import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tests.trainables.test_trainable import batch, build
from trainables.engine.step import LossScale, backward, clip_gradients


def gradient(parts: int, count: int = 8) -> tuple[float, list[torch.Tensor]]:
    trainable = build("classify", augment="none")
    for module in trainable.model.modules():  # its statistics would be those of a part
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    loss = backward(trainable, trainable.model, batch("classify", count), 1.0, parts, nullcontext)
    return float(loss), [p.grad.clone() for p in trainable.model.parameters()]


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_give_the_gradient_of_the_whole(parts):
    loss, wanted = gradient(1)
    split_loss, found = gradient(parts)
    assert split_loss == pytest.approx(loss, rel=1e-5)
    for one, two in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_weight_scales_the_gradient_and_not_the_loss():
    trainable = build("classify", augment="none")
    trainable.set_training(False)
    first = backward(trainable, trainable.model, batch("classify"), 1.0, 1, nullcontext)
    once = [p.grad.clone() for p in trainable.model.parameters()]
    trainable.model.zero_grad()
    second = backward(trainable, trainable.model, batch("classify"), 3.0, 1, nullcontext)
    assert float(first) == pytest.approx(float(second))
    for one, parameter in zip(once, trainable.model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 3 * one)


def steps(values: list[float], autocast: torch.dtype | None) -> tuple[list[float], LossScale]:
    """A weight that starts at 1, and its value after each step with these gradients, rate 0.5."""
    weight = nn.Parameter(torch.ones(()))
    model = nn.Module()
    model.register_parameter("weight", weight)
    optimizer, scale = torch.optim.SGD([weight], lr=0.5), LossScale(autocast, torch.device("cpu"))
    seen = []
    for value in values:
        optimizer.zero_grad()
        (weight * value * scale.factor).backward()
        scale.step(optimizer, model, 2.0)
        seen.append(float(weight.detach()))
    return seen, scale


def test_gradients_are_those_without_a_scale_and_steps_that_overflow_are_left_out():
    plain, unused = steps([0.25, 1e-3, 4.0], None)
    assert plain == pytest.approx([0.875, 0.8745, -0.1255], abs=1e-6)  # the last is clipped to 2
    assert (unused.used, unused.factor, unused.skipped, unused.state()) == (False, 1.0, 0, {})
    scaled, scale = steps([0.25, math.inf, 1e-3, math.nan, 4.0], torch.float16)
    assert [scaled[k] for k in (0, 2, 4)] == plain and scaled[1] == scaled[0]
    assert (scale.used, scale.factor, scale.skipped) == (True, 65536.0 / 4, 2)
    other = LossScale(torch.float16, torch.device("cpu"))
    other.load(scale.state())
    assert other.factor == scale.factor
    unused.load(scale.state())  # of a training that went on in another precision
    assert unused.factor == 1.0


def test_gradients_that_fit_no_scale_end_the_training():
    with pytest.raises(FloatingPointError, match="do not fit float16"):
        steps([math.inf] * 30, torch.float16)


@pytest.mark.parametrize("limit", [0.1, 1.0, 1e4])
def test_clipped_gradients_are_those_of_torch_bit_for_bit(limit: float) -> None:
    found = []
    for clip in (clip_gradients, nn.utils.clip_grad_norm_):
        trainable = build("classify", augment="none")
        loss = trainable.loss(trainable.model, batch("classify"))
        loss.backward()  # type: ignore[no-untyped-call]
        next(iter(trainable.model.parameters())).grad = None  # a frozen one
        clip(trainable.model if clip is clip_gradients else trainable.model.parameters(), limit)
        found.append([p.grad for p in trainable.model.parameters() if p.grad is not None])
    assert len(found[0]) > 10
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    clip_gradients(nn.Linear(1, 1), limit)  # without gradients there is nothing to do
