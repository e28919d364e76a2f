"""Builds encoders: networks by name without their classifier, and a slim ResNet for small tests."""

from typing import Any

from torch import nn

from trainables.backbones import own_encoder
from trainables.networks import timm_networks, torchvision_networks
from trainables.networks.names import OTHERS
from trainables.networks.timm_names import is_timm
from trainables.own_code.names import is_own

_SLIMMER = 4  # the slim ResNet has this fraction of ResNet18's channels


def build_encoder(
    name: str, small_input: bool, channels: int = 3, side: int | None = None
) -> tuple[nn.Module, int]:
    """Return a network without its classifier, randomly initialised, or what own code builds.

    Returns (encoder, D): (B, channels, H, W) float → (B, D) float; of a ResNet the output of
    `avgpool`. small_input: start a ResNet with a 3x3 convolution of stride 1 and no max-pooling, as
    for CIFAR in arXiv:1512.03385, 4.2, in place of ImageNet's 7x7 of stride 2. side: of the images
    in px, which a ViT must know; default: that of ImageNet, 224. Raises ValueError where it does
    not fit.
    """
    if is_own(name):
        return own_encoder(name, channels)
    if is_timm(name):
        return timm_networks.build(name, channels, side)
    if name in OTHERS:
        return torchvision_networks.build(name, channels, side)
    from torchvision.models import get_model  # seconds to load: only who builds a model pays

    encoder: Any = _slim() if name == "resnet10_slim" else get_model(name, weights=None)
    width = int(encoder.fc.in_features)
    encoder.fc = nn.Identity()
    if small_input:
        encoder.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(encoder.conv1.weight, mode="fan_out", nonlinearity="relu")
        encoder.maxpool = nn.Identity()
    elif channels != 3:
        encoder.conv1 = widened(encoder.conv1, channels)
    return encoder, width


def widened(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    """Return a new first convolution of the same shape for so many channels."""
    new = nn.Conv2d(
        channels,
        layer.out_channels,
        kernel_size=layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        bias=layer.bias is not None,
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new


def _slim() -> nn.Module:
    """Return one residual block a layer and a quarter of ResNet18's channels: 0.3 million
    parameters, for tests and for a first try of a study."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class SlimResNet(ResNet):  # type: ignore[misc]
        def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
            layer: nn.Sequential = super()._make_layer(block, planes // _SLIMMER, *rest, **named)
            return layer

    encoder = SlimResNet(BasicBlock, [1, 1, 1, 1])
    encoder.fc = nn.Linear(512 // _SLIMMER, 1)  # names its width; it is taken off
    return encoder
