"""The layers of an encoder by depth: every parameter in one, the image's side first."""

import pytest
import torch

from trainables.models.encoders import build_encoder
from trainables.models.layers import layers_of
from trainables.models.segmentation import DeepLabV3, Fcn32s


@pytest.mark.parametrize("name", ["resnet10_slim", "resnet18", "resnet50", "vgg16", "deeplabv3"])
def test_every_parameter_is_in_one_layer_in_the_order_of_the_network(name: str) -> None:
    with torch.device("meta"):
        if name in ("vgg16", "deeplabv3"):
            encoder = (Fcn32s(3, 16) if name == "vgg16" else DeepLabV3(3)).encoder
        else:
            encoder, _ = build_encoder(name, small_input=False)
    layers = layers_of(encoder)
    found = [id(parameter) for layer in layers for parameter in layer]
    assert found == [id(parameter) for parameter in encoder.parameters()]
    # VGG16: five blocks between poolings, and layers 6 and 7
    assert len(layers) == (7 if name == "vgg16" else 5)
