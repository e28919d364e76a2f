"""Names the networks that may stand below a trainable: ResNets, and those of own code.

An own one is a function `build(channels)` → (encoder, D): a module from normalized images
(B, channels, H, W) float to features (B, D) float, with random weights from the torch seed.
"""

import importlib
from typing import Any

from trainables.own_code.names import is_own, load

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet10_slim")
WITHOUT_IMAGENET = ("resnet10_slim",)


def check_backbone(name: str) -> str:
    """Return the name of a backbone. Raises ValueError for an unknown one."""
    if name not in RESNETS and not is_own(name):
        raise ValueError(
            f"no backbone {name!r} (there are: {', '.join(RESNETS)}, or module:build of your own)"
        )
    return name


def check_settings(name: str, small_input: bool, weights: str) -> None:
    """Raise ValueError where weights or input do not fit a backbone."""
    if weights == "imagenet" and (is_own(name) or name in WITHOUT_IMAGENET):
        raise ValueError(f"weights 'imagenet': there are none for {name}")
    if small_input and is_own(name):
        raise ValueError(f"small_input is for ResNets: remove it, and build {name} as you want")


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


def own_shapes(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of an own encoder, in their order: name → shape. Loads torch."""
    torch = importlib.import_module("torch")
    with torch.device("meta"):
        encoder, _ = own_encoder(name, channels)
    return {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
