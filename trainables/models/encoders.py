"""Encoders from torchvision, and the verified hand-off of weights into them."""

from typing import Any

from torch import nn


def build_encoder(name: str, stem: str) -> tuple[nn.Module, int]:
    """A torchvision ResNet without its classifier, randomly initialised.

    Returns (encoder, D): (B, 3, H, W) float → (B, D) float, the output of `avgpool`.
    stem `small`: 3x3 stride 1 without max-pooling, as for CIFAR in arXiv:1512.03385, 4.2.
    """
    from torchvision.models import get_model  # seconds to load: only who builds a model pays

    encoder: Any = get_model(name, weights=None)
    width = int(encoder.fc.in_features)
    encoder.fc = nn.Identity()
    if stem == "small":
        encoder.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
        encoder.maxpool = nn.Identity()
    return encoder, width
