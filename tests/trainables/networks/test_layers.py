"""The layers of an encoder by depth: every parameter in one, the image's side first."""

import pytest
import torch
from torch import nn

from trainables.models.encoders import build_encoder
from trainables.models.segmentation import DeepLabV3, Fcn32s
from trainables.networks.layers import late_layers, layers_of, parts_without

# network → how many layers it has: VGG16 five blocks between poolings, and layers 6 and 7
LAYERS = {"resnet10_slim": 5, "resnet18": 5, "resnet50": 5, "deeplabv3": 5, "vgg16": 7,
          "convnext_tiny": 5, "vit_b_16": 13, "efficientnet_b0": 9,
          "efficientnet_v2_s": 8}  # fmt: skip


def encoder_of(name: str) -> nn.Module:
    with torch.device("meta"):
        if name in ("vgg16", "deeplabv3"):
            return (Fcn32s(3, 16) if name == "vgg16" else DeepLabV3(3)).encoder
        return build_encoder(name, small_input=False)[0]


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_is_in_one_layer_in_the_order_of_the_network(name: str) -> None:
    encoder = encoder_of(name)
    layers = layers_of(encoder)
    found = [id(parameter) for layer in layers for parameter in layer]
    assert found == [id(parameter) for parameter in encoder.parameters()]
    assert len(layers) == LAYERS[name]


@pytest.mark.parametrize(
    ("name", "late"),
    [
        ("resnet18", ("layer4.",)),
        ("convnext_tiny", ("features.6.", "features.7.", "classifier.")),
        ("efficientnet_b0", ("features.7.", "features.8.")),
        ("vit_b_16", tuple(f"encoder.layers.encoder_layer_{n}." for n in (9, 10, 11))
         + ("encoder.ln.",)),
    ],
)  # fmt: skip
def test_late_layers_are_the_last_quarter_and_nothing_else_learns(
    name: str, late: tuple[str, ...]
) -> None:
    encoder = encoder_of(name)
    learning = {id(parameter) for parameter in late_layers(encoder)}
    names = {key: id(value) for key, value in encoder.named_parameters()}
    assert {key for key, place in names.items() if place in learning} == {
        key for key in names if key.startswith(late)
    }
    for part in parts_without(encoder, learning):
        part.eval()
    frozen = {key for key, module in encoder.named_modules() if not module.training}
    assert not any(f"{key}.".startswith(late) for key in frozen)
    held = {key.rpartition(".")[0] for key in names if not key.startswith(late)}
    assert held - frozen <= {"", "encoder"}  # they hold tokens beside layers that learn
