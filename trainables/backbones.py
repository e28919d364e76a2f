"""Names the networks that may stand below a trainable: torchvision's, timm's, and own code's.

An own one is a function `build(channels)` → (encoder, D): a module from normalized images
(B, channels, H, W) float to features (B, D) float, with random weights from the torch seed.
"""

import difflib
import importlib
from typing import Any

from trainables.networks.names import OTHERS, RESNETS, check_side
from trainables.networks.timm_names import check_timm, is_timm, timm_version
from trainables.own_code.names import is_own, load

BACKBONES = (*RESNETS, *OTHERS)
WITHOUT_IMAGENET = ("resnet10_slim",)


def check_backbone(name: str) -> str:
    """Return the name of a backbone. Raises ValueError for an unknown one."""
    if is_timm(name):
        check_timm(name)
    if name in BACKBONES or is_timm(name) or is_own(name):
        return name
    near = difflib.get_close_matches(name, BACKBONES, 1)
    there = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(BACKBONES)}"
    raise ValueError(f"no backbone {name!r} ({there} Or timm:NAME, or module:build of your own)")


def check_settings(name: str, small_input: bool, weights: str) -> None:
    """Raise ValueError where weights or input do not fit a backbone."""
    if weights == "imagenet" and is_timm(name):
        raise ValueError(
            f"weights 'imagenet' are torchvision's: give a file of {name} as `weights`, "
            ".safetensors or .pth"
        )
    if weights == "imagenet" and (is_own(name) or name in WITHOUT_IMAGENET):
        raise ValueError(f"weights 'imagenet': there are none for {name}")
    if small_input and is_own(name):
        raise ValueError(f"small_input is for ResNets: remove it, and build {name} as you want")
    if small_input and (name in OTHERS or is_timm(name)):
        raise ValueError(f"small_input is for ResNets: remove it, {name} begins as it does")


def code_of(name: str) -> tuple[list[str], list[str]]:
    """Return the modules that build a network and count for its Runs alone, and the library that
    decides what it is, such as `timm 1.0.31`. Raises ValueError where that is not installed."""
    if is_timm(name):
        return ["trainables.networks.timm_networks"], [f"timm {timm_version()}"]
    return (["trainables.networks.torchvision_networks"] if name in OTHERS else []), []


def check_images(name: str, side: int, channels: int, train: str = "full") -> None:
    """Raise ValueError where images of so many px a side do not fit a backbone, or where its late
    layers are to learn and are not known. train: of `classify`. Loads torch for a network of timm,
    which is built to see."""
    if name in OTHERS:
        check_side(name, side)
    known = not is_own(name)
    if is_timm(name):
        _, known = timm_described(name, channels, side)
    if train == "late" and not known:
        raise ValueError(
            f"train 'late' is for networks by name, and the layers of {name} are not known: set "
            "train to full or head"
        )


def own_encoder(name: str, channels: int) -> tuple[Any, int]:
    """Build an encoder of own code. Returns (encoder, D). Raises ValueError where the function
    returns something else, and what it raises itself."""
    built = load(name)(channels)
    module = importlib.import_module("torch.nn").Module  # seconds: torch
    if not (
        isinstance(built, tuple)
        and len(built) == 2
        and isinstance(built[0], module)
        and type(built[1]) is int
    ):
        raise ValueError(
            f"backbone {name} must return (encoder, width), a torch module and the number of its "
            f"features, not {type(built).__name__}"
        )
    return built


def timm_described(name: str, channels: int, side: int) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Return the tensors of a network of timm, name → shape, and whether its layers are known.
    Loads torch. Raises ValueError where it does not take such images."""
    networks = importlib.import_module("trainables.networks.timm_networks")
    described: tuple[dict[str, tuple[int, ...]], bool] = networks.described(name, channels, side)
    return described


def check_maps(name: str, channels: int) -> None:
    """Raise ValueError where DeepLabV3 cannot stand on a network of timm. Loads torch."""
    importlib.import_module("trainables.networks.timm_networks").maps_of(name, channels)


def own_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of an own encoder, in their order: name → shape. Loads torch."""
    torch = importlib.import_module("torch")
    with torch.device("meta"):
        encoder, _ = own_encoder(name, channels)
    return {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
