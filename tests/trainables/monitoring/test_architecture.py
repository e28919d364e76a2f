"""A model's blocks: all of its parameters, the real flow, costs as they are counted by hand; an
architecture outlives JSON, and its table names and adds up all blocks."""

import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.monitoring.architecture import (
    Architecture,
    Block,
    architecture,
    as_text,
    from_plain,
    trace,
)
from trainables.tasks.registry import TRAINABLES

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "rotation": ("rotation", {"small_input": True}),
    "head": ("classify", {"head": "mlp", "train": "head"}),
    "byol": ("byol", {"backbone": "resnet18", "hidden": 32}),
    "fcn32s": ("segment", {"network": "fcn32s", "backbone": "vgg16", "hidden": 16}),
    "deeplabv3": ("segment", {"network": "deeplabv3"}),
}


ONE = Architecture(
    "Net",
    (
        Block("input", "", (3, 8, 8), 0, 0, 0),
        Block("conv", "Conv2d 3×3, ReLU", (8, 8, 8), 1_216, 1_216, 12_000),
        Block("output", "", (8, 8, 8), 0, 0, 0),
    ),
    ((0, 1), (1, 2)),
    (0, 1, 2),
)


def drawn(name: str) -> tuple[Architecture, nn.Module]:
    kind, settings = CASES[name]
    trainable = TRAINABLES[kind]
    config, data = trainable.Config.model_validate({"dataset": "d", **settings}), info()
    with torch.device("meta"):
        model = trainable(config, data).model
    return architecture(trainable, config, data), model


def info() -> DataInfo:
    return DataInfo(("a", "b", "c"), 64)


def named(one: Architecture) -> set[tuple[str, str]]:
    return {(one.blocks[start].name, one.blocks[end].name) for start, end in one.flows}


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_in_one_block_and_every_block_between_input_and_output(name) -> None:
    one, model = drawn(name)
    assert one.parameters == sum(weight.numel() for weight in model.parameters())
    starts, ends = ({flow[side] for flow in one.flows} for side in (0, 1))
    for place, block in enumerate(one.blocks):
        assert (place in ends) == (block.name != "input")
        assert (place in starts) == (block.name != "output")
    assert all(start < end and one.levels[start] < one.levels[end] for start, end in one.flows)


def test_what_is_frozen_is_not_counted_as_trained() -> None:
    one, _ = drawn("head")
    encoder = [block for block in one.blocks if block.name.startswith("encoder")]
    assert sum(block.trained for block in encoder) == 0 < sum(b.parameters for b in encoder)
    head = [block for block in one.blocks if block.name.startswith("head")]
    assert all(block.trained == block.parameters > 0 for block in head)


def test_deeplabs_branches_part_and_meet_again() -> None:
    one, _ = drawn("deeplabv3")
    flows = named(one)
    for branch in range(4):
        assert ("encoder.layer4", f"head.0.convs.{branch}") in flows
        assert (f"head.0.convs.{branch}", "cat") in flows
    assert ("encoder.layer3", "auxiliary.0") in flows
    shapes = {block.name: block.shape for block in one.blocks}
    assert shapes["encoder.layer4"] == (2048, 8, 8) and shapes["output"] == (3, 64, 64)


def test_byols_two_networks_meet_in_the_loss_alone() -> None:
    flows = named(drawn("byol")[0])
    assert ("input", "encoder.conv1") in flows and ("input", "target_encoder.conv1") in flows
    into = {start for start, end in flows if end == "cosine_similarity"}
    assert into == {"predictor.3", "target_projector.3"}


class Small(nn.Module):
    """Counted by hand: 8 * 3 * 9 weights at 16 places, and 32 * 5 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.up = nn.ConvTranspose2d(8, 2, 4, stride=4)
        self.linear = nn.Linear(2 * 16 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.linear(self.up(self.act(self.conv(images))).flatten(1))
        return found


def test_costs_and_shapes_are_those_counted_by_hand() -> None:
    with torch.device("meta"):
        model = Small()
    one = trace(model, [(3, 8, 8)])
    assert [(block.name, block.kind) for block in one.blocks] == [
        ("input", ""),
        ("conv", "Conv2d 3×3 stride 2, ReLU"),
        ("up", "ConvTranspose2d 4×4 stride 4"),
        ("linear", "Linear"),
        ("output", ""),
    ]
    assert [block.shape for block in one.blocks] == [(3, 8, 8), (8, 4, 4), (2, 16, 16), (5,), (5,)]
    assert [block.mult_adds for block in one.blocks] == [0, 216 * 16, 8 * 2 * 16 * 16, 512 * 5, 0]
    lines = as_text(one).splitlines()
    assert len(lines) == 7 and lines[0].split()[:3] == ["block", "made", "of"]
    assert lines[-1].split() == ["Small", f"{one.parameters:,}", f"{one.mult_adds:,}"]


def test_what_json_has_kept_is_the_same() -> None:
    assert from_plain(json.loads(json.dumps(asdict(ONE)))) == ONE


def test_the_table_ends_with_the_totals() -> None:
    lines = as_text(ONE).splitlines()
    assert [line.split()[0] for line in lines] == ["block", "input", "conv", "output", "Net"]
    assert lines[2].split() == [
        "conv", "Conv2d", "3×3,", "ReLU", "8", "×", "8", "×", "8", "1,216", "12,000",
    ]  # fmt: skip
    assert lines[-1].split() == ["Net", "1,216", "12,000"]


@pytest.mark.parametrize("backbone", ["vit_b_32", "convnext_tiny", "timm:test_vit"])
def test_attention_tokens_and_scales_are_counted_with_their_blocks(backbone: str) -> None:
    kind, data = TRAINABLES["classify"], DataInfo(("a", "b"), 64)
    config = kind.Config.model_validate({"dataset": "d", "backbone": backbone})
    with torch.device("meta"):
        model = kind(config, data).model
    found = architecture(kind, config, data)
    assert found.parameters == sum(value.numel() for value in model.parameters())
    assert len(found.blocks) < 16
    stacks = [block for block in found.blocks if " × " in block.kind]
    assert all(block.mult_adds > 1000 for block in stacks) and stacks
