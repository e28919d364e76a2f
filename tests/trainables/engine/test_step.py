"""A batch in parts gives the gradient of the whole (on two ranks: test_worker)."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from tests.trainables.test_trainable import batch, build
from trainables.engine.step import backward


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
