"""Sorts the parameters of an encoder by depth, so that each layer can have a rate of its own, and
the first ones can stay frozen."""

from collections.abc import Callable, Collection, Iterator

from torch import nn


def layers_of(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, the layer nearest the image first.

    A ResNet has five: its first convolution with BatchNorm, and four residual stages. A VGG has the
    convolutions between two poolings, and each layer above them. Other networks by name say the
    depth of their parameters by a function `depth_of`. All parameters are in one layer.
    """
    depth_of: Callable[[str], int] | None = getattr(encoder, "depth_of", None)
    if depth_of is not None:
        return _by_depth(encoder, depth_of)
    layers: list[list[nn.Parameter]] = [[]]
    for name, child in encoder.named_children():
        if name.startswith("layer"):
            layers.append(list(child.parameters()))
        elif name in ("features", "classifier"):
            for module in child.children():
                if isinstance(module, nn.MaxPool2d) or name == "classifier":
                    layers.append([])
                layers[-1] += module.parameters()
        else:
            layers[-1] += child.parameters()
    return [layer for layer in layers if layer]


def _by_depth(encoder: nn.Module, depth_of: Callable[[str], int]) -> list[list[nn.Parameter]]:
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in encoder.named_parameters():
        layers.setdefault(depth_of(name), []).append(parameter)
    return [layers[depth] for depth in sorted(layers)]


def late_layers(encoder: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the last quarter of the layers, the first of them not counted: of a
    ResNet those of its last residual stage."""
    layers = layers_of(encoder)
    count = max(1, round((len(layers) - 1) / 4))
    return [parameter for layer in layers[-count:] for parameter in layer]


def parts_without(module: nn.Module, learning: Collection[int]) -> Iterator[nn.Module]:
    """Yield the largest parts of a module in which nothing learns. learning: `id` of the parameters
    that do."""
    for child in module.children():
        learns = [id(parameter) in learning for parameter in child.parameters()]
        if not any(learns):
            yield child
        elif not all(learns):
            yield from parts_without(child, learning)
