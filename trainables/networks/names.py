"""Names the networks of torchvision that a study may name, and what images they take.

Nothing here loads torch: a plan reads it.
"""

import re

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet10_slim")
CONVNEXTS = ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
VITS = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
EFFICIENTNETS = (
    *(f"efficientnet_b{number}" for number in range(8)),
    *(f"efficientnet_v2_{size}" for size in "sml"),
)
OTHERS = (*CONVNEXTS, *VITS, *EFFICIENTNETS)  # those that are not ResNets
OWN_SIDE = 224  # px of the images that torchvision's weights of a ViT have learned from

_CONVNEXT_STRIDE = 32  # px of the image for each place of its last map
# torchvision's weights that are not its first ones
_IMAGENET = {"efficientnet_b1": "IMAGENET1K_V2", "vit_h_14": "IMAGENET1K_SWAG_LINEAR_V1"}


def patch_of(name: str) -> int:
    """Return the side in px of the patches that a ViT cuts images into."""
    return int(name.rpartition("_")[2])


def check_side(name: str, side: int) -> None:
    """Raise ValueError where a network of torchvision cannot take images of so many px a side."""
    if name in CONVNEXTS and side < _CONVNEXT_STRIDE:
        raise ValueError(
            f"{name} needs images of {_CONVNEXT_STRIDE} px or more, not {side}: raise view_size or "
            "the data set's size"
        )
    if name in VITS:
        check_patches(name, side, patch_of(name))


def check_patches(name: str, side: int, patch: int) -> None:
    """Raise ValueError where images of so many px a side are not cut into whole patches."""
    if side % patch == 0:
        return
    below, above = side // patch * patch, (side // patch + 1) * patch
    fitting = f"{below} or {above}" if below else str(above)
    raise ValueError(
        f"{name} cuts images into patches of {patch} px, and {side} px are no multiple: set "
        f"view_size or the data set's size to {fitting}"
    )


def imagenet_weights(name: str) -> str:
    """Return torchvision's name of the weights of one of `OTHERS`, as `get_weight` takes it."""
    words = {"convnext": "ConvNeXt", "vit": "ViT", "efficientnet": "EfficientNet"}
    family, *rest = name.split("_")
    written = "_".join([words[family], *(_word(part) for part in rest)])
    return f"{written}_Weights.{_IMAGENET.get(name, 'IMAGENET1K_V1')}"


def _word(part: str) -> str:
    return part.upper() if re.fullmatch(r"b\d|[a-z]|v2", part) else part.capitalize()
