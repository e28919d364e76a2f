"""Loads weights into an encoder, and verifies that all of them fit."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.files import only_files
from trainables.training_config import TrainableConfig

IMAGENET_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "vgg16": "VGG16_Weights.IMAGENET1K_V1",
}
ENCODER = "encoder."  # begins the names of an encoder's tensors in our own models
_HEADS = ("fc.", "head.", "classifier.6.")  # ResNet's, ours, VGG's
_FEATURES = "features."  # VGG's stack of convolutions
_NUMBERED = re.compile(r"[0-9]+\.(weight|bias)")  # its tensors without that name
_COUNTER = "num_batches_tracked"
# keys under which training programs keep the model, beside epoch and optimizer
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
_DEEPEST = 4  # of keys within keys
# what a slow copy of a network is called: momentum_encoder, encoder_k, target_encoder, teacher
_SLOW_COPY = re.compile(r"(?:^|[._])(?:momentum|target|teacher|ema|k|key|slow)(?:[._]|$)")


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
) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of `state` for an encoder whose own are `expected`, by name and shape, and
    the prefix that was taken off their names.

    Raises WeightsError if one is missing, unknown, of another shape, or holds no finite numbers.

    state: names as in the encoder, where a classifier's own tensors (`fc.`, `head.`) are left out;
    or a larger model's, whose names of the encoder share a prefix, such as `encoder.`. Of VGG the
    convolutions are enough: the layers above them stay as they are.
    """
    if _FEATURES + "0.weight" in expected and all(_NUMBERED.match(name) for name in state):
        state = {_FEATURES + name: value for name, value in state.items()}
    prefix = _prefix_of(expected, state, source)
    given = as_convolutions(_below(prefix, state), expected)
    given |= _beside_convolutions(expected, given)
    for name in (
        expected.keys() - given.keys()
    ):  # a counter that older files lack; torch adds it too
        if name.endswith(_COUNTER):
            given[name] = torch.zeros(expected[name].shape, dtype=expected[name].dtype)
    errors = [f"missing {name}" for name in expected if name not in given]
    errors += [f"unknown {name}" for name in given if name not in expected]
    errors += [
        f"{name} {reason}"
        for name in expected
        if name in given and (reason := _misfit(given[name], expected[name]))
    ]
    if errors:
        shown = "; ".join(errors[:5]) + (" ..." if len(errors) > 5 else "")
        whole = not any(error.startswith(("missing ", "unknown ")) for error in errors)
        cure = "" if whole else "the file's network with `backbone` and `small_input`, or "
        raise WeightsError(
            f"weights of {source} do not fit the encoder ({len(errors)} errors): {shown}; there "
            f"are {_listed(state)}: give the stage {cure}another file"
        )
    return {name: given[name] for name in expected}, prefix


def _beside_convolutions(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the encoder's own layers above VGG's convolutions where only these are given; they
    are trained from random weights. Empty for every other encoder and file."""
    above = {n: v for n, v in expected.items() if not n.startswith(_FEATURES)}
    stack = expected.keys() - above.keys()
    return above if stack and given.keys() == stack else {}


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it and without a head."""
    inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return {n: v for n, v in inner.items() if prefix == ENCODER or not n.startswith(_HEADS)}


def _prefix_of(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> str:
    """Return what the names of the encoder's tensors begin with in a larger model.

    Of a network and its slow copy (a target, a teacher) the network is meant. Raises WeightsError
    where two others are there.
    """
    needed = {sum(not name.endswith(_COUNTER) for name in expected)}
    needed |= {sum(name.startswith(_FEATURES) for name in expected)}  # of VGG: convolutions alone
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for depth in range(len(parts)):
            inner = ".".join(parts[depth:])
            if inner in expected and not inner.endswith(_COUNTER):
                counts[name.removesuffix(inner)] += 1
    whole = [prefix for prefix, count in counts.items() if count in needed]
    for own in (ENCODER, ""):  # as our own models have them
        if own in whole or (own and any(name.startswith(own) for name in state) and not whole):
            return own
    networks = [prefix for prefix in whole if not _SLOW_COPY.search(prefix)] or whole
    if len(networks) > 1:
        raise WeightsError(
            f"weights of {source} hold {len(networks)} networks that fit the encoder "
            f"({', '.join(networks[:5])}): write one of them into a file of its own"
        )
    return networks[0] if networks else ""


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


def _listed(state: Mapping[str, Tensor]) -> str:
    """Say what a file holds: how many tensors, and the first of them."""
    if not state:
        return "no tensors"
    first = [f"{name} {tuple(value.shape)}" for name, value in list(state.items())[:3]]
    return f"{len(state)} tensors, {', '.join(first)}" + (" ..." if len(state) > 3 else "")


def load_encoder(encoder: nn.Module, state: Mapping[str, Tensor], source: str) -> WeightTransfer:
    """Copy `state` into the encoder if all of it fits. Else raises WeightsError and changes
    nothing."""
    own = encoder.state_dict()
    given, prefix = fitting(own, state, source)
    built = sum(given[name] is own[name] for name in own)
    encoder.load_state_dict(given, strict=True)
    if prefix not in ("", ENCODER):
        source = f"{source} without the prefix {prefix}"
    if built:
        source = f"{source} (convolutions alone, {built} tensors above them are random)"
    return WeightTransfer(source, len(given) - built, fingerprint(encoder.state_dict()))


def read_state_file(path: Path) -> dict[str, Tensor]:
    """Read a state-dict file, weights only: nothing in it is executed. Raises WeightsError."""
    try:
        with open(path, "rb", opener=only_files) as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        what = type(error).__name__  # not its text, which advises to execute the file
        raise WeightsError(
            f"{path} is no state-dict file ({what}): write one with torch.save(model.state_dict())"
        ) from error
    state = _tensors(content)
    if not state:
        there = f"{', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise WeightsError(f"{path} holds no state dict" + (f", only {there}" if there else ""))
    return state


def _tensors(content: object, depth: int = 0) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name. Of a training program's, with epoch and
    optimizer, those of the model; of several models all, each with its key as a prefix."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    for key in _NESTED:
        if inner := _tensors(content.get(key), depth + 1):
            return inner
    state: dict[str, Tensor] = {}
    for name, value in content.items():
        if isinstance(value, Tensor) and isinstance(name, str):
            state[name] = value
        elif isinstance(name, str):
            state |= {f"{name}.{n}": v for n, v in _tensors(value, depth + 1).items()}
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
