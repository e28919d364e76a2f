"""Loads weights into an encoder, and verifies that all of them fit."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.training_config import TrainableConfig

IMAGENET_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
}
_HEADS = ("fc.", "head.", "classifier.6.")  # ResNet's, ours, VGG's


class WeightsError(Exception):
    """Weights do not fit the encoder, or a file holds none. The text is one line."""


@dataclass(frozen=True)
class WeightTransfer:
    """Says what was loaded into an encoder.

    source: from where; tensors: how many; fingerprint: 12 hexadecimal digits over their bytes.
    """

    source: str
    tensors: int
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.tensors} encoder tensors from {self.source}, fingerprint {self.fingerprint}"


def as_convolutions(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Reshape fully connected layers to the convolutions that replace them: the same numbers in
    another shape (arXiv:1411.4038, section 3.1). expected: the tensors of the encoder."""

    def fits(name: str, value: Tensor) -> bool:
        there = expected.get(name)
        return there is not None and value.ndim == 2 < there.ndim and value.numel() == there.numel()

    return {n: v.view(expected[n].shape) if fits(n, v) else v for n, v in state.items()}


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and bytes, in the order of the names. Returns 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def fitting(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> dict[str, Tensor]:
    """Return the tensors of `state` for an encoder whose own are `expected`, by name and shape.

    Raises WeightsError if one is missing, unknown, or of another shape.

    state: names as in the encoder, where a classifier's own tensors (`fc.`, `head.`) are left out;
    or a whole model's, of which those that begin with `encoder.` are taken.
    """
    inner = {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}
    given = inner or {n: v for n, v in state.items() if not n.startswith(_HEADS)}
    given = as_convolutions(given, expected)
    for name in (
        expected.keys() - given.keys()
    ):  # a counter that older files lack; torch adds it too
        if name.endswith("num_batches_tracked"):
            given[name] = torch.zeros(expected[name].shape, dtype=expected[name].dtype)
    errors = [f"missing {name}" for name in expected if name not in given]
    errors += [f"unknown {name}" for name in given if name not in expected]
    errors += [
        f"{name} is {tuple(given[name].shape)}, must be {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    if errors:
        shown = "; ".join(errors[:5]) + (" ..." if len(errors) > 5 else "")
        raise WeightsError(
            f"weights of {source} do not fit the encoder ({len(errors)} errors): {shown}"
        )
    return {name: given[name] for name in expected}


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], source: str) -> WeightTransfer:
    """Copy `state` into the encoder if all of it fits. Else raises WeightsError and changes
    nothing."""
    given = fitting(encoder.state_dict(), state, source)
    encoder.load_state_dict(given, strict=True)
    return WeightTransfer(source, len(given), fingerprint(encoder.state_dict()))


def read_state_file(path: Path) -> dict[str, Tensor]:
    """Read a state-dict file, weights only: nothing in it is executed. Raises WeightsError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        what = type(error).__name__  # not its text, which advises to execute the file
        raise WeightsError(
            f"{path} is no state-dict file ({what}): write one with torch.save(model.state_dict())"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        raise WeightsError(f"{path} holds no state dict")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds more than tensors: give a plain state dict")
    return state


def initialize(encoder: nn.Module, config: TrainableConfig) -> WeightTransfer:
    """Load what `config.weights` names: random (as built), torchvision's ImageNet, or a file.

    Raises WeightsError if they do not fit.
    """
    if config.weights == "random":
        state = encoder.state_dict()
        return WeightTransfer("random initialisation", len(state), fingerprint(state))
    if config.weights == "imagenet":
        from torchvision.models import get_weight

        weights = get_weight(IMAGENET_WEIGHTS[config.backbone])
        state = dict(weights.get_state_dict(progress=False, check_hash=True))
        return load_encoder(encoder, state, f"torchvision {weights}")
    path = Path(config.weights)
    return load_encoder(encoder, read_state_file(path), path.name)
