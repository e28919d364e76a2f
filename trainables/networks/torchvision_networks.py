"""Builds ConvNeXt, ViT and EfficientNet of torchvision without their classifier."""

import math
import re
from functools import partial
from typing import Any

from torch import nn

from trainables.networks.names import CONVNEXTS, OWN_SIDE, VITS, check_side, patch_of


def build(name: str, channels: int, side: int | None = None) -> tuple[nn.Module, int]:
    """Return a network of torchvision, randomly initialised, as (encoder, D): images
    (B, channels, side, side) float → (B, D) float.

    side: in px; a ViT has a position for each of its patches and takes no other; default:
    torchvision's 224. `depth_of` of the encoder says how deep a parameter lies. Raises ValueError
    where images of that side do not fit.
    """
    from torchvision.models import get_model  # seconds to load: only who builds a model pays

    side = OWN_SIDE if side is None else side
    check_side(name, side)
    options = {"image_size": side} if name in VITS else {}
    encoder: Any = get_model(name, weights=None, **options)
    if name in VITS:
        width = int(encoder.hidden_dim)
        encoder.heads = nn.Identity()
    else:
        width = int(encoder.classifier[-1].in_features)
        if name in CONVNEXTS:
            encoder.classifier[-1] = nn.Identity()  # behind a LayerNorm
        else:
            encoder.classifier = nn.Identity()
    if channels != 3:
        _take_channels(encoder, name, channels)
    if name in VITS:
        encoder.depth_of = partial(_vit_depth, len(encoder.encoder.layers))
    else:
        encoder.depth_of = _convnext_depth if name in CONVNEXTS else _efficientnet_depth
    return encoder, width


def _take_channels(encoder: Any, name: str, channels: int) -> None:
    """Replace the first convolution by one for so many channels, initialised as torchvision's."""
    owner, key = (encoder, "conv_proj") if name in VITS else (encoder.features[0], "0")
    old = getattr(owner, key)
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        bias=old.bias is not None,
    )
    if name in VITS:
        nn.init.trunc_normal_(new.weight, std=math.sqrt(1 / (channels * patch_of(name) ** 2)))
    elif name in CONVNEXTS:
        nn.init.trunc_normal_(new.weight, std=0.02)
    else:
        nn.init.kaiming_normal_(new.weight, mode="fan_out")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    setattr(owner, key, new)


def _convnext_depth(parameter: str) -> int:
    """Return 0 for the first convolution, 1 to 4 for the stages, each with what leads to it."""
    place = parameter.split(".")
    if place[0] == "classifier":
        return 4
    return int(place[1]) // 2 + 1 if place[1] != "0" else 0


def _vit_depth(blocks: int, parameter: str) -> int:
    """Return 0 for patches, class token and positions, else the block, from 1; the last LayerNorm
    lies in the last block."""
    if found := re.search(r"encoder_layer_(\d+)", parameter):
        return int(found[1]) + 1
    return blocks if parameter.startswith("encoder.ln.") else 0


def _efficientnet_depth(parameter: str) -> int:
    """Return 0 for the first convolution, then the stage; the last convolution is one more."""
    return int(parameter.split(".")[1])
