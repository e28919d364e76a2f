"""Finds the tensors of an encoder among those of a file, by name and shape.

It needs shapes alone, so that a plan can check a file without loading torch.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trainables.networks.positions import Grids, other_grid

ENCODER = "encoder."  # begins the names of an encoder's tensors in our own models
_HEADS = ("fc.", "head.", "heads.", "head_dist.", "classifier.")  # names of classifiers
_CLASSIFIER = re.compile(r"classifier\.([0-9]+)\.")
_FEATURES = "features."  # VGG's stack of convolutions
_NUMBERED = re.compile(r"[0-9]+\.(weight|bias)")  # its tensors without that name
COUNTER = "num_batches_tracked"  # ends the name of BatchNorm's counter
# keys under which training programs keep the model, beside epoch and optimizer
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network")
_DEEPEST = 4  # of keys within keys
# what a slow copy of a network is called: momentum_encoder, encoder_k, target_encoder, teacher
_SLOW_COPY = re.compile(r"(?:^|[._])(?:momentum|target|teacher|ema|k|key|slow)(?:[._]|$)")


class Shaped(Protocol):
    """A tensor, or what is known of one: its shape."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def view(self, shape: tuple[int, ...], /) -> Any: ...


AnyTensor = TypeVar("AnyTensor", bound=Shaped)


class WeightsError(Exception):
    """Weights do not fit the encoder, or a file holds none. The text is one line."""


def as_convolutions(
    state: Mapping[str, AnyTensor], expected: Mapping[str, AnyTensor]
) -> dict[str, AnyTensor]:
    """Reshape fully connected layers to the convolutions that replace them: the same numbers in
    another shape (arXiv:1411.4038, section 3.1). expected: the tensors of the encoder."""

    def fits(name: str, value: AnyTensor) -> bool:
        there = expected.get(name)
        if there is None or not len(value.shape) == 2 < len(there.shape):
            return False
        return math.prod(value.shape) == math.prod(there.shape)

    return {n: v.view(expected[n].shape) if fits(n, v) else v for n, v in state.items()}


def matched(
    expected: Mapping[str, AnyTensor],
    state: Mapping[str, AnyTensor],
    source: str,
    misfit: Callable[[AnyTensor, AnyTensor], str],
    zeros: Callable[[AnyTensor], AnyTensor],
    resized: Callable[[AnyTensor, Grids], AnyTensor],
) -> tuple[dict[str, AnyTensor], str]:
    """Return the tensors of `state` for an encoder whose own are `expected`, by name and shape, and
    the prefix that was taken off their names.

    Raises WeightsError if one is missing, unknown, or does not take the place of the encoder's:
    misfit says why not, given both. zeros: of the form of a tensor; resized: positions of a ViT for
    images of another size.

    state: names as in the encoder, where a classifier's own tensors (`_HEADS`) are left out;
    or a larger model's, whose names of the encoder share a prefix, such as `encoder.`. Of VGG the
    convolutions are enough: the layers above them stay as they are.
    """
    if _FEATURES + "0.weight" in expected and all(_NUMBERED.match(name) for name in state):
        state = {_FEATURES + name: value for name, value in state.items()}
    prefix = _prefix_of(expected, state, source)
    given = as_convolutions(_below(prefix, state, expected), expected)
    given |= _beside_convolutions(expected, given)
    given |= {n: resized(given[n], grids) for n, grids in _other_grids(expected, given).items()}
    for name in expected.keys() - given.keys():
        if name.endswith(COUNTER):  # older files lack it; torch adds it too
            given[name] = zeros(expected[name])
    errors = [f"missing {name}" for name in expected if name not in given]
    errors += [f"unknown {name}" for name in given if name not in expected]
    errors += [
        f"{name} {reason}"
        for name in expected
        if name in given and (reason := misfit(given[name], expected[name]))
    ]
    if errors:
        shown = "; ".join(errors[:5]) + (" ..." if len(errors) > 5 else "")
        whole = not any(error.startswith(("missing ", "unknown ")) for error in errors)
        cure = "" if whole else "the file's network with `backbone` and `small_input`, or "
        if any(_is_keras(given[name], expected[name]) for name in expected if name in given):
            order = "(height, width, in, out)"
            shown += f"; its kernels lie as Keras has them, {order}: permute each by (3, 2, 0, 1)"
        raise WeightsError(
            f"weights of {source} do not fit the encoder ({len(errors)} errors): {shown}; there "
            f"are {_listed(state)}: give the stage {cure}another file"
        )
    return {name: given[name] for name in expected}, prefix


def _is_keras(given: AnyTensor, expected: AnyTensor) -> bool:
    """Return whether a kernel has the sides of the encoder's in the order that Keras has them."""
    if len(expected.shape) != 4 or tuple(given.shape) == tuple(expected.shape):
        return False
    return tuple(given.shape) == tuple(expected.shape[axis] for axis in (2, 3, 1, 0))


def _other_grids(
    expected: Mapping[str, AnyTensor], given: Mapping[str, AnyTensor]
) -> dict[str, Grids]:
    """Return name → grids of the positions that were learned from images of another size."""
    found = {n: other_grid(n, tuple(given[n].shape), tuple(v.shape)) for n, v in expected.items()
             if n in given}  # fmt: skip
    return {name: grids for name, grids in found.items() if grids is not None}


def positions_note(
    expected: Mapping[str, AnyTensor], state: Mapping[str, AnyTensor], prefix: str
) -> str:
    """Say how `matched` has interpolated the positions of a ViT; empty where it has not."""
    inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    return "; ".join(map(str, _other_grids(expected, inner).values()))


def note_of(given: Mapping[str, AnyTensor], expected: Mapping[str, AnyTensor], prefix: str) -> str:
    """Say what a reader of a plan should know of what `matched` returned; mostly nothing."""
    built = sum(given[n] is v for n, v in expected.items() if not n.endswith(COUNTER))
    taken = f"names of tensors without the prefix {prefix}" if prefix not in ("", ENCODER) else ""
    above = f"convolutions alone, {built} tensors above them are random" if built else ""
    return "; ".join(text for text in (taken, above) if text)


def _beside_convolutions(
    expected: Mapping[str, AnyTensor], given: Mapping[str, AnyTensor]
) -> dict[str, AnyTensor]:
    """Return the encoder's own layers above VGG's convolutions where only these are given; they
    are trained from random weights. Empty for every other encoder and file."""
    if _FEATURES + "0.weight" not in expected:
        return {}
    above = {n: v for n, v in expected.items() if not n.startswith(_FEATURES)}
    stack = expected.keys() - above.keys()
    return above if stack and given.keys() == stack else {}


def _below(
    prefix: str, state: Mapping[str, AnyTensor], expected: Mapping[str, AnyTensor]
) -> dict[str, AnyTensor]:
    """Return the tensors whose names begin with a prefix, without it and without a head."""
    inner = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    if prefix == ENCODER:
        return inner
    layers = [int(found[1]) for name in expected if (found := _CLASSIFIER.match(name))]
    last = max(layers, default=-1)
    return {n: v for n, v in inner.items() if n in expected or not _is_head(n, last)}


def _is_head(name: str, last: int) -> bool:
    """Return whether a tensor that the encoder lacks is a classifier's. last: number of the last
    layer of `classifier` that the encoder has, as VGG and ConvNeXt do."""
    layer = _CLASSIFIER.match(name)
    return int(layer[1]) > last if layer else name.startswith(_HEADS)


def _prefix_of(
    expected: Mapping[str, AnyTensor], state: Mapping[str, AnyTensor], source: str
) -> str:
    """Return what the names of the encoder's tensors begin with in a larger model.

    Of a network and its slow copy (a target, a teacher) the network is meant. Raises WeightsError
    where two others are there.
    """
    needed = {sum(not name.endswith(COUNTER) for name in expected)}
    if _FEATURES + "0.weight" in expected:  # of VGG: convolutions alone
        needed |= {sum(name.startswith(_FEATURES) for name in expected)}
    ours = any(name.startswith(ENCODER) for name in state)
    ours = ours and not any(name.startswith(ENCODER) for name in expected)  # as torchvision's ViT
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for depth in range(len(parts)):
            inner = ".".join(parts[depth:])
            if inner in expected and not inner.endswith(COUNTER):
                counts[name.removesuffix(inner)] += 1
    whole = [prefix for prefix, count in counts.items() if count in needed]
    for own in (ENCODER, ""):  # as our own models have them
        if own in whole or (own and ours and not whole):
            return own
    networks = [prefix for prefix in whole if not _SLOW_COPY.search(prefix)] or whole
    if len(networks) > 1:
        raise WeightsError(
            f"weights of {source} hold {len(networks)} networks that fit the encoder "
            f"({', '.join(networks[:5])}): write one of them into a file of its own"
        )
    return networks[0] if networks else ""


def _listed(state: Mapping[str, AnyTensor]) -> str:
    """Say what a file holds: how many tensors, and the first of them."""
    if not state:
        return "no tensors"
    first = [f"{name} {tuple(value.shape)}" for name, value in list(state.items())[:3]]
    return f"{len(state)} tensors, {', '.join(first)}" + (" ..." if len(state) > 3 else "")


def state_of(content: object, path: Path, kind: type[AnyTensor]) -> dict[str, AnyTensor]:
    """Return the state dict of what a file holds. kind: of its tensors. Raises WeightsError."""
    state = _tensors(content, kind)
    if not state:
        there = f"{', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) else ""
        raise WeightsError(f"{path} holds no state dict" + (f", only {there}" if there else ""))
    return state


def _tensors(content: object, kind: type[AnyTensor], depth: int = 0) -> dict[str, AnyTensor]:
    """Return the tensors of a checkpoint by name. Of a training program's, with epoch and
    optimizer, those of the model; of several models all, each with its key as a prefix."""
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    for key in _NESTED:
        if inner := _tensors(content.get(key), kind, depth + 1):
            return inner
    state: dict[str, AnyTensor] = {}
    for name, value in content.items():
        if isinstance(value, kind) and isinstance(name, str):
            state[name] = value
        elif isinstance(name, str):
            state |= {f"{name}.{n}": v for n, v in _tensors(value, kind, depth + 1).items()}
    return state
