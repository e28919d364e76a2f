"""Loads weights into an encoder, and verifies that all of them fit."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.files import only_files
from trainables.models.matching import (
    COUNTER,
    ENCODER,
    WeightsError,
    matched,
    note_of,
    positions_note,
    state_of,
)
from trainables.models.stored_tensors import (
    NotUnderstood,
    StoredTensor,
    is_safetensors,
    read_safetensors,
)
from trainables.networks.names import imagenet_weights
from trainables.networks.positions import Grids
from trainables.training_config import TrainableConfig

IMAGENET_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet34": "ResNet34_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "resnet101": "ResNet101_Weights.IMAGENET1K_V2",
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
}


_MOST_NAMES = 3  # of classes that a message lists


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
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of `state` for an encoder, and the prefix of their names: see `matched`.

    Raises WeightsError, also where a tensor holds numbers that are not finite.
    """
    return matched(expected, state, source, _misfit, _zeros, _resized)


def _misfit(given: Tensor, expected: Tensor) -> str:
    """Return why a tensor cannot take the place of another; empty where it can."""
    if given.shape != expected.shape:
        return f"is {tuple(given.shape)}, must be {tuple(expected.shape)}"
    if given.layout != torch.strided or given.is_quantized:
        return "is sparse or quantized, must be dense numbers"
    if not expected.is_floating_point():
        return "" if not given.is_complex() else f"is {given.dtype}, must be {expected.dtype}"
    if not given.is_floating_point():
        return f"is {given.dtype}, must be floating-point"
    wrong = given.numel() - int(given.to(expected.dtype).isfinite().sum())
    return f"has {wrong} values that are not finite" if wrong else ""


def _resized(given: Tensor, grids: Grids) -> Tensor:
    """Interpolate the positions of a ViT, (1, others + given², D), to another number of patches, as
    for images of another size in arXiv:2010.11929, 3.2; bicubic, as timm does it."""
    if not given.is_floating_point():
        return given
    others, grid = given[:, : grids.others], given[:, grids.others :]
    grid = grid.float().reshape(1, grids.given, grids.given, -1).permute(0, 3, 1, 2)
    size = grids.wanted, grids.wanted
    grid = F.interpolate(grid, size, mode="bicubic", antialias=True)
    return torch.cat([others.float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=like.dtype)


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], source: str) -> WeightTransfer:
    """Copy `state` into the encoder if all of it fits. Else raises WeightsError and changes
    nothing."""
    own = encoder.state_dict()
    given, prefix = fitting(own, state, source)
    built = sum(given[name] is own[name] for name in own)
    encoder.load_state_dict(given, strict=True)
    if prefix not in ("", ENCODER):
        source = f"{source} without the prefix {prefix}"
    if note := positions_note(own, state, prefix):
        source = f"{source} ({note})"
    if built:
        source = f"{source} (convolutions alone, {built} tensors above them are random)"
    return WeightTransfer(source, len(given) - built, fingerprint(encoder.state_dict()))


def read_state_file(path: Path) -> dict[str, Tensor]:
    """Read a state-dict file, weights only: nothing in it is executed. Raises WeightsError."""
    try:
        if is_safetensors(path):
            stored = read_safetensors(path)
            return state_of({n: _loaded(v) for n, v in stored.items()}, path, Tensor)
        with open(path, "rb", opener=only_files) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except NotUnderstood as error:
        raise WeightsError(f"{error}: copy it anew") from error
    except WeightsError:
        raise
    except Exception as error:
        # not the text of the error: it advises to execute the file
        what = _kind_of(path) or _objects_in(path) or type(error).__name__
        raise WeightsError(
            f"{path} is no state-dict file ({what}): write one with torch.save(model.state_dict())"
        ) from error
    return state_of(content, path, Tensor)


def _loaded(stored: StoredTensor) -> Tensor:
    """Return a tensor of a safetensors file."""
    tensor = torch.from_numpy(stored.read().copy())
    if stored.dtype == "bfloat16":
        tensor = tensor.view(torch.bfloat16)
    return tensor.view(stored.shape)


def _kind_of(path: Path) -> str:
    """Return what another program's file of weights is, by its first bytes; empty if unknown."""
    try:
        with open(path, "rb", opener=only_files) as file:
            first = file.read(16)
    except OSError as error:
        return error.strerror or ""
    if first.startswith(b"\x89HDF"):
        return "HDF5, as of Keras"
    return ""


def _objects_in(path: Path) -> str:
    """Name the classes of objects other than tensors in a file of torch.save; empty if unknown."""
    try:
        with open(path, "rb", opener=only_files) as file:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except Exception:  # a file of another form, or one that is cut: there is nothing to name
        return ""
    shown = ", ".join(sorted(names)[:_MOST_NAMES]) + (" ..." if len(names) > _MOST_NAMES else "")
    return f"it holds objects beside tensors: {shown}" if names else ""


def check_file(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Check that the tensors of a state-dict file fit an encoder with these shapes. Returns what a
    reader should know of it, see `note_of`. Raises WeightsError."""
    expected = {
        name: torch.zeros(shape, dtype=torch.int64 if name.endswith(COUNTER) else torch.float32)
        for name, shape in shapes.items()
    }
    state = read_state_file(path)
    given, prefix = fitting(expected, state, str(path))
    notes = note_of(given, expected, prefix), positions_note(expected, state, prefix)
    return "; ".join(note for note in notes if note)


def initialize(encoder: nn.Module, config: TrainableConfig) -> WeightTransfer:
    """Load what `config.weights` names: random (as built), torchvision's ImageNet, or a file.

    Raises WeightsError if they do not fit.
    """
    if config.weights == "random":
        state = encoder.state_dict()
        return WeightTransfer("random initialisation", len(state), fingerprint(state))
    if config.weights == "imagenet":
        from torchvision.models import get_weight

        weights = get_weight(
            IMAGENET_WEIGHTS.get(config.backbone) or imagenet_weights(config.backbone)
        )
        state = dict(weights.get_state_dict(progress=False, check_hash=True))
        return load_encoder(encoder, state, f"torchvision {weights}")
    path = Path(config.weights)
    return load_encoder(encoder, read_state_file(path), path.name)
