"""Builds networks of timm without their classifier, with random weights: nothing is downloaded."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.networks.names import OWN_SIDE, check_patches
from trainables.networks.timm_names import TIMM, check_timm

_STRIDES = (8, 16)  # px of the image for each place of a map, of those that DeepLabV3 stands on
_TRIED = 128  # px of the images that a network is tried with
_IMAGES = 2  # BatchNorm in training mode refuses a single one


def build(name: str, channels: int, side: int | None = None) -> tuple[nn.Module, int]:
    """Return `timm:NAME` as (encoder, D): images (B, channels, side, side) float → (B, D) float.

    side: in px; a network with positions takes no other; default: 224. `depth_of` of the encoder
    says how deep a parameter lies, where timm knows it. Raises ValueError where timm has no such
    network, or it does not take such images.
    """
    import timm  # seconds to load, and optional

    check_timm(name)
    inner, side = name.removeprefix(TIMM), OWN_SIDE if side is None else side
    preset = timm.models.get_pretrained_cfg(inner, allow_unregistered=True)
    options: dict[str, Any] = {}
    if preset is not None and preset.fixed_input_size:
        options["img_size"] = side
    try:
        encoder: Any = timm.create_model(
            inner, pretrained=False, num_classes=0, in_chans=channels, **options
        )
    except Exception as error:  # what a network demands of images is its own affair
        raise ValueError(_refused(name, channels, side, error)) from error
    _check_patches(encoder, name, side)
    if hasattr(encoder, "group_matcher"):
        matcher = encoder.group_matcher(coarse=True)
        groups = timm.models.group_parameters(encoder, matcher, reverse=True)
        encoder.depth_of = functools.partial(_depth_of, _without_last_norm(encoder, groups))
    return encoder, int(getattr(encoder, "head_hidden_size", None) or encoder.num_features)


@dataclass(frozen=True)
class Maps:
    """Says what DeepLabV3 must know of a network of timm.

    output_stride: the option that it is built with, None for none; widths: channels of the last map
    but one and of the last; stride: px of the image for each place of the last map; unused:
    parameters that no map depends on.
    """

    output_stride: int | None
    widths: tuple[int, int]
    stride: int
    unused: frozenset[str]


def build_dilated(name: str, channels: int) -> tuple[nn.Module, Maps]:
    """Return `timm:NAME` with maps at a stride of 8, else of 16, and what they are like.

    Its tensors are those of `build`, so that weights can be handed on. Parameters that no map
    depends on do not learn. Raises ValueError where it has no such maps.
    """
    maps = maps_of(name, channels)
    encoder = _created(name, channels, maps.output_stride)
    for key, parameter in encoder.named_parameters():
        if key in maps.unused:
            parameter.requires_grad_(False)
    return encoder, maps


def last_maps(encoder: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last two maps of a network of timm, each (B, C, H', W')."""
    middle, last = encoder.forward_intermediates(images, indices=2, intermediates_only=True)
    return middle, last


@functools.cache
def maps_of(name: str, channels: int) -> Maps:
    """Return what the maps of a network of timm are like; it is built without memory. Raises
    ValueError where DeepLabV3 cannot stand on them."""
    import timm

    check_timm(name)
    preset = timm.models.get_pretrained_cfg(name.removeprefix(TIMM), allow_unregistered=True)
    if preset is not None and preset.fixed_input_size:
        raise ValueError(
            f"{name} takes images of one size, and a segmentation learns from crops: take a "
            "network of convolutions"
        )
    reasons = []
    for output_stride in (*_STRIDES, None):
        try:
            with torch.device("meta"):
                maps = _tried(name, channels, output_stride)
        except Exception as error:  # most networks take one of these options only
            reasons.append(" ".join(f"{type(error).__name__}: {error}".split()))
            continue
        if maps.stride in _STRIDES:
            return maps
        reasons.append(f"its last map has a stride of {maps.stride}")
    raise ValueError(f"{name} has no maps at a stride of 8 or 16 for DeepLabV3 ({reasons[-1]})")


def _tried(name: str, channels: int, output_stride: int | None) -> Maps:
    """Build a network on the meta device, and pass two images through it."""
    encoder = _created(name, channels, output_stride)
    middle, last = last_maps(encoder, torch.empty(_IMAGES, channels, _TRIED, _TRIED))
    (middle.sum() + last.sum()).backward()  # type: ignore[no-untyped-call]
    unused = frozenset(key for key, value in encoder.named_parameters() if value.grad is None)
    widths = middle.shape[1], last.shape[1]
    return Maps(output_stride, widths, _TRIED // last.shape[-1], unused)


def _created(name: str, channels: int, output_stride: int | None) -> nn.Module:
    import timm

    options: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    encoder: nn.Module = timm.create_model(
        name.removeprefix(TIMM), pretrained=False, num_classes=0, in_chans=channels, **options
    )
    return encoder


def _check_patches(encoder: Any, name: str, side: int) -> None:
    """Raise ValueError where patches would leave out a part of the images."""
    patch = getattr(getattr(encoder, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and patch[0]:
        check_patches(name, side, int(patch[0]))


def _without_last_norm(encoder: nn.Module, groups: dict[str, int]) -> dict[str, int]:
    """Return parameter → depth, where a last layer of nothing but a normalization belongs to the
    one before it."""
    last = max(groups.values())
    axes = [value.ndim for name, value in encoder.named_parameters() if groups[name] == last]
    if max(axes) > 1:
        return groups
    return {name: min(depth, last - 1) for name, depth in groups.items()}


def _depth_of(groups: dict[str, int], parameter: str) -> int:
    return groups[parameter]


@functools.cache
def described(name: str, channels: int, side: int) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Return the tensors of a network of timm, name → shape in its order, and whether the depth of
    its layers is known. It is built without memory, and given two images once.

    Raises ValueError where it does not take them, or gives no vector (B, D) an image.
    """
    with torch.device("meta"):
        encoder, width = build(name, channels, side)
        try:
            features = encoder(torch.empty(_IMAGES, channels, side, side))
        except Exception as error:
            raise ValueError(_refused(name, channels, side, error)) from error
    if not isinstance(features, torch.Tensor) or features.shape != (_IMAGES, width):
        raise ValueError(f"{name} gives no vector of features an image: take another network")
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    return shapes, hasattr(encoder, "depth_of")


def _refused(name: str, channels: int, side: int, error: Exception) -> str:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{name} does not take images of {side} x {side} px with {channels} channels ({said})"
