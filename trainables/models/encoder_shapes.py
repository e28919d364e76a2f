"""States the names and shapes of the tensors of encoders, without building them.

A plan compares them with those of a weights file; building an encoder takes seconds of imports.
"""

from collections.abc import Iterator

from trainables.backbones import own_shapes, timm_described
from trainables.networks.names import OTHERS, OWN_SIDE
from trainables.networks.timm_names import is_timm
from trainables.networks.torchvision_shapes import torchvision_shapes
from trainables.own_code.names import is_own

Shapes = dict[str, tuple[int, ...]]

# backbone → residual blocks of its four layers, channels of the first, and by how much the last
# convolution of a block multiplies them; 1: basic blocks of two convolutions (arXiv:1512.03385)
_RESNETS = {
    "resnet18": ((2, 2, 2, 2), 64, 1),
    "resnet34": ((3, 4, 6, 3), 64, 1),
    "resnet50": ((3, 4, 6, 3), 64, 4),
    "resnet101": ((3, 4, 23, 3), 64, 4),
    "resnet10_slim": ((1, 1, 1, 1), 16, 1),
    "resnet50_slim": ((3, 4, 6, 3), 16, 4),
}
# VGG16's convolutions (arXiv:1409.1556): place in `features` → channels
_VGG16 = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 17: 512, 19: 512, 21: 512,
          24: 512, 26: 512, 28: 512}  # fmt: skip
# those of its variant with BatchNorm, of which the slim one has a quarter of the channels
_VGG16_BN = {0: 64, 3: 64, 7: 128, 10: 128, 14: 256, 17: 256, 20: 256, 24: 512, 27: 512, 30: 512,
             34: 512, 37: 512, 40: 512}  # fmt: skip


def encoder_shapes(
    backbone: str, small_input: bool, channels: int = 3, side: int = OWN_SIDE
) -> Shapes:
    """Return the tensors of `encoders.build_encoder`, in its order: name → shape. Loads torch for
    a backbone of own code or of timm. Raises ValueError where images of a side in px do not fit."""
    if is_own(backbone):
        return own_shapes(backbone, channels)
    if is_timm(backbone):
        return timm_described(backbone, channels, side)[0]
    if backbone in OTHERS:
        return torchvision_shapes(backbone, channels, side)
    return resnet_shapes(backbone, small_input, channels)


def resnet_shapes(backbone: str, small_input: bool, channels: int = 3) -> Shapes:
    """Return the tensors of a ResNet without its classifier, in its order: name → shape."""
    blocks, width, factor = _RESNETS[backbone]
    side = 3 if small_input else 7
    shapes: Shapes = {"conv1.weight": (64, channels, side, side)}
    shapes |= _norm("bn1", 64)
    inputs = 64
    for layer, count in enumerate(blocks, 1):
        for block in range(count):
            name, planes = f"layer{layer}.{block}", width * 2 ** (layer - 1)
            shapes |= dict(_block(name, inputs, planes, factor))
            if block == 0 and (layer > 1 or inputs != planes * factor):
                shapes[f"{name}.downsample.0.weight"] = (planes * factor, inputs, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", planes * factor)
            inputs = planes * factor
    return shapes


def _block(
    name: str, inputs: int, planes: int, factor: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the convolutions of a residual block: two of 3x3, or 1x1, 3x3 and 1x1."""
    kernels = (3, 3) if factor == 1 else (1, 3, 1)
    for number, kernel in enumerate(kernels, 1):
        outputs = planes * factor if number == len(kernels) else planes
        yield f"{name}.conv{number}.weight", (outputs, inputs, kernel, kernel)
        yield from _norm(f"{name}.bn{number}", outputs).items()
        inputs = outputs


def _norm(name: str, width: int) -> Shapes:
    """Return the tensors of a BatchNorm."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (width,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def vgg_shapes(hidden: int, channels: int = 3, slim: bool = False) -> Shapes:
    """Return the tensors of `segmentation.VggEncoder`, in its order: name → shape."""
    shapes: Shapes = {}
    inputs = channels
    for place, whole in (_VGG16_BN if slim else _VGG16).items():
        outputs = whole // 4 if slim else whole
        shapes[f"features.{place}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"features.{place}.bias"] = (outputs,)
        shapes |= _norm(f"features.{place + 1}", outputs) if slim else {}
        inputs = outputs
    for place, kernel in ((0, 7), (3, 1)):
        shapes[f"classifier.{place}.weight"] = (hidden, inputs, kernel, kernel)
        shapes[f"classifier.{place}.bias"] = (hidden,)
        inputs = hidden
    return shapes
