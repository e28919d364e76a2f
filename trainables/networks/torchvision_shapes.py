"""States the names and shapes of the tensors of torchvision's networks without their classifier.

A plan compares them with those of a weights file without loading torch. The widths and depths are
those of the papers: ConvNeXt (arXiv:2201.03545), ViT (arXiv:2010.11929, table 1), EfficientNet
(arXiv:1905.11946, table 1) and EfficientNetV2 (arXiv:2104.00298, table 4).
"""

import math
from collections.abc import Iterator

from trainables.networks.names import CONVNEXTS, VITS, patch_of

Shapes = dict[str, tuple[int, ...]]
Named = Iterator[tuple[str, tuple[int, ...]]]

# network → blocks of its four stages, channels of the first
_CONVNEXTS = {
    "convnext_tiny": ((3, 3, 9, 3), 96),
    "convnext_small": ((3, 3, 27, 3), 96),
    "convnext_base": ((3, 3, 27, 3), 128),
    "convnext_large": ((3, 3, 27, 3), 192),
}
_VITS = {"b": (12, 768), "l": (24, 1024), "h": (32, 1280)}  # size → blocks, width
# of each stage: by how much a block widens its input, side of its kernel, channels, blocks
_B0 = ((1, 3, 16, 1), (6, 3, 24, 2), (6, 5, 40, 2), (6, 3, 80, 3), (6, 5, 112, 3), (6, 5, 192, 4),
       (6, 3, 320, 1))  # fmt: skip
# size → by how much channels and blocks are more than B0's
_SCALED = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4), "b4": (1.4, 1.8),
           "b5": (1.6, 2.2), "b6": (1.8, 2.6), "b7": (2.0, 3.1)}  # fmt: skip
_V2 = {
    "s": ((1, 3, 24, 2), (4, 3, 48, 4), (4, 3, 64, 4), (4, 3, 128, 6), (6, 3, 160, 9),
          (6, 3, 256, 15)),
    "m": ((1, 3, 24, 3), (4, 3, 48, 5), (4, 3, 80, 5), (4, 3, 160, 7), (6, 3, 176, 14),
          (6, 3, 304, 18), (6, 3, 512, 5)),
    "l": ((1, 3, 32, 4), (4, 3, 64, 7), (4, 3, 96, 7), (4, 3, 192, 10), (6, 3, 224, 19),
          (6, 3, 384, 25), (6, 3, 640, 7)),
}  # fmt: skip
_FUSED = 3  # first stages of V2, whose blocks begin with one whole convolution
_V2_LAST = 1280  # channels of the last convolution


def torchvision_shapes(name: str, channels: int, side: int) -> Shapes:
    """Return the tensors of `torchvision_networks.build`, in its order: name → shape."""
    if name in CONVNEXTS:
        return dict(_convnext(name, channels))
    if name in VITS:
        return dict(_vit(name, channels, side))
    return dict(_efficientnet(name, channels))


def _convnext(name: str, channels: int) -> Named:
    blocks, width = _CONVNEXTS[name]
    yield from _layer("features.0.0", width, channels, 4, 4)
    yield from _norm("features.0.1", width)
    for stage, count in enumerate(blocks):
        for block in range(count):
            place = f"features.{2 * stage + 1}.{block}"
            yield f"{place}.layer_scale", (width, 1, 1)
            yield from _layer(f"{place}.block.0", width, 1, 7, 7)
            yield from _norm(f"{place}.block.2", width)
            yield from _layer(f"{place}.block.3", 4 * width, width)
            yield from _layer(f"{place}.block.5", width, 4 * width)
        if stage < len(blocks) - 1:
            yield from _norm(f"features.{2 * stage + 2}.0", width)
            yield from _layer(f"features.{2 * stage + 2}.1", 2 * width, width, 2, 2)
            width *= 2
    yield from _norm("classifier.0", width)


def _vit(name: str, channels: int, side: int) -> Named:
    patch = patch_of(name)
    blocks, width = _VITS[name.split("_")[1]]
    yield "class_token", (1, 1, width)
    yield from _layer("conv_proj", width, channels, patch, patch)
    yield "encoder.pos_embedding", (1, (side // patch) ** 2 + 1, width)
    for block in range(blocks):
        place = f"encoder.layers.encoder_layer_{block}"
        yield from _norm(f"{place}.ln_1", width)
        yield f"{place}.self_attention.in_proj_weight", (3 * width, width)
        yield f"{place}.self_attention.in_proj_bias", (3 * width,)
        yield from _layer(f"{place}.self_attention.out_proj", width, width)
        yield from _norm(f"{place}.ln_2", width)
        yield from _layer(f"{place}.mlp.0", 4 * width, width)
        yield from _layer(f"{place}.mlp.3", width, 4 * width)
    yield from _norm("encoder.ln", width)


def _efficientnet(name: str, channels: int) -> Named:
    stages, stem, last, fused = _stages(name)
    yield from _convolution("features.0", stem, channels, 3)
    inputs = stem
    for number, (widening, kernel, outputs, count) in enumerate(stages, 1):
        for block in range(count):
            make = _fused if number <= fused else _inverted
            place = f"features.{number}.{block}.block"
            yield from make(place, (inputs, inputs * widening, outputs), kernel)
            inputs = outputs
    yield from _convolution(f"features.{len(stages) + 1}", last, inputs, 1)


def _stages(name: str) -> tuple[list[tuple[int, int, int, int]], int, int, int]:
    """Return an EfficientNet's stages, channels of its first and of its last convolution, and how
    many stages begin with whole convolutions."""
    size = name.rpartition("_")[2]
    if "_v2_" in name:
        return list(_V2[size]), _V2[size][0][2], _V2_LAST, _FUSED
    wider, deeper = _SCALED[size]
    stages = [(w, k, _eighths(c * wider), math.ceil(n * deeper)) for w, k, c, n in _B0]
    return stages, _eighths(32 * wider), 4 * stages[-1][2], 0


def _eighths(channels: float) -> int:
    """Round to a multiple of 8 that is not below nine tenths."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _inverted(place: str, widths: tuple[int, int, int], kernel: int) -> Named:
    """Yield a block that widens, convolves each channel, weighs channels, and narrows."""
    inputs, inner, outputs = widths
    number = 0
    if inner != inputs:
        yield from _convolution(f"{place}.0", inner, inputs, 1)
        number = 1
    yield from _convolution(f"{place}.{number}", inner, 1, kernel)
    squeezed = max(1, inputs // 4)
    yield from _layer(f"{place}.{number + 1}.fc1", squeezed, inner, 1, 1)
    yield from _layer(f"{place}.{number + 1}.fc2", inner, squeezed, 1, 1)
    yield from _convolution(f"{place}.{number + 2}", outputs, inner, 1)


def _fused(place: str, widths: tuple[int, int, int], kernel: int) -> Named:
    """Yield a block that widens by a whole convolution, and narrows."""
    inputs, inner, outputs = widths
    if inner == inputs:
        yield from _convolution(f"{place}.0", outputs, inputs, kernel)
        return
    yield from _convolution(f"{place}.0", inner, inputs, kernel)
    yield from _convolution(f"{place}.1", outputs, inner, 1)


def _convolution(place: str, outputs: int, inputs: int, kernel: int) -> Named:
    """Yield a convolution without bias, and its BatchNorm."""
    yield f"{place}.0.weight", (outputs, inputs, kernel, kernel)
    yield from _norm(f"{place}.1", outputs)
    for statistic in ("running_mean", "running_var"):
        yield f"{place}.1.{statistic}", (outputs,)
    yield f"{place}.1.num_batches_tracked", ()


def _layer(place: str, outputs: int, *weight: int) -> Named:
    yield f"{place}.weight", (outputs, *weight)
    yield f"{place}.bias", (outputs,)


def _norm(place: str, width: int) -> Named:
    yield f"{place}.weight", (width,)
    yield f"{place}.bias", (width,)
