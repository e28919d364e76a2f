"""Sorts the parameters of an encoder by depth, so that each layer can have a rate of its own."""

from torch import nn


def layers_of(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, the layer nearest the image first.

    A ResNet has five: its first convolution with BatchNorm, and four residual stages. A VGG has the
    convolutions between two poolings, and each layer above them. All parameters are in one layer.
    """
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
