"""Weights that see nothing but padding learn nothing, in whatever format they are computed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.data.datasets import DatasetConfig
from trainables.engine.checkpoints import InMemory
from trainables.engine.loop import fit
from trainables.loading.decoded_cache import load_table
from trainables.numerics.reached_taps import guarded
from trainables.tasks.registry import TRAINABLES

# kernel, stride, dilation, side of the images; taps along a side that see a pixel
CASES = [
    (7, 1, 1, 2, [2, 3, 4]),
    (3, 2, 1, 1, [1]),
    (3, 1, 1, 1, [1]),
    (3, 1, 36, 8, [1]),
    (3, 1, 1, 2, [0, 1, 2]),
    (5, 1, 1, 3, [0, 1, 2, 3, 4]),
]


def fill_memory() -> None:
    """Leave numbers where new tensors will lie."""
    for size in (1_000, 10_000, 100_000, 1_000_000):
        torch.full((size,), 7e20)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("kernel", "stride", "dilation", "side", "seen"), CASES)
def test_taps_that_see_padding_alone_have_no_gradient(
    kernel: int, stride: int, dilation: int, side: int, seen: list[int], precision: torch.dtype
) -> None:
    torch.manual_seed(0)
    around = dilation * (kernel // 2)
    model = nn.Sequential(nn.Conv2d(64, 32, kernel, stride, around, dilation))
    images = torch.randn(8, 64, side, side)
    expected = torch.autograd.grad(model(images).square().sum(), model[0].weight)[0]
    names = list(model.state_dict())
    guarded(model, None if precision == torch.float32 else precision)
    assert list(model.state_dict()) == names and "0): Conv2d(64" in repr(model)
    with torch.inference_mode():  # a probe comes before the first step
        model(images)
    for _ in range(4):
        fill_memory()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            model(images).float().square().sum().backward()
        found, model[0].weight.grad = model[0].weight.grad, None
        unseen = torch.ones(kernel, dtype=torch.bool)
        unseen[seen] = False
        assert not found[:, :, unseen].any() and not found[:, :, :, unseen].any()
        if precision == torch.float32:
            assert torch.equal(found, expected)
        else:
            assert (found - expected).norm() < 0.02 * expected.norm()


# torch's convolution; shapes of images and of its weights; what else it is made with
OTHERS = [
    (nn.Conv1d, (8, 32, 1), (32, 32, 3), {"padding": 1, "stride": 2}),
    (nn.Conv2d, (8, 64, 1, 1), (64, 64, 5), {"padding": 2, "stride": 2, "groups": 64}),
    (nn.Conv2d, (8, 64, 2, 2), (64, 64, 7), {"padding": "same"}),
    (nn.Conv2d, (8, 64, 2, 2), (64, 64, 4), {"padding": "same"}),
    (nn.Conv2d, (8, 64, 9, 2), (64, 64, (3, 7)), {"padding": (1, 3)}),
    (nn.Conv2d, (8, 64, 9, 9), (64, 64, 3), {"padding": "valid"}),
    (nn.Conv2d, (8, 64, 3, 3), (64, 64, 5), {"padding": 2, "padding_mode": "reflect"}),
    (nn.Conv2d, (8, 64, 3, 3), (64, 64, 7), {"padding": 3, "padding_mode": "circular"}),
    (nn.Conv2d, (8, 64, 2, 2), (64, 64, 7), {"padding": 3, "padding_mode": "replicate"}),
]


@pytest.mark.parametrize(("kind", "images", "weights", "more"), OTHERS)
def test_every_convolution_learns_what_it_learns_in_float32(
    kind: type[nn.Conv2d], images: tuple[int, ...], weights: tuple[int, ...], more: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(kind(*weights, **more))
    values = torch.randn(images)
    expected = torch.autograd.grad(model(values).square().sum(), model[0].weight)[0]
    guarded(model, torch.bfloat16)
    assert f"0): {kind.__name__}(" in repr(model)
    for _ in range(4):
        fill_memory()
        with torch.autocast("cpu", torch.bfloat16):
            found = torch.autograd.grad(model(values).float().square().sum(), model[0].weight)[0]
        assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.slow
def test_a_training_whose_kernel_is_larger_than_its_image_is_repeated_bit_for_bit(
    tmp_path: Path,
) -> None:
    """Layer 6 of FCN-32s has 7 x 7 taps, and sees 2 x 2 pixels of an image of 64 px."""
    scenes = {"number": 12, "digit": 48, "digits": [1, 2]}
    table = load_table(DatasetConfig(type="digit_scenes", scenes=scenes), tmp_path)
    segment = TRAINABLES["segment"]
    config = segment.Config(
        dataset="d", network="fcn32s", backbone="vgg16_slim", hidden=64, padding="layer6",
        epochs=1, batch_size=4, precision="bfloat16",
    )  # fmt: skip
    found = []
    for _ in range(2):
        kept = InMemory()
        fill_memory()
        fit(segment, config, table, seed=0, checkpoints=kept)
        found.append(kept.weights(1))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
