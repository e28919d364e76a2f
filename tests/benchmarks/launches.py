"""How many operations does the CPU hand to a GPU in a training step, and how often does it wait for
it? Counted, not measured: nothing is computed, and no GPU is needed.

    python -m tests.benchmarks launches

The training loop runs on tensors without content (device `meta`), where our code takes the path of
a GPU, float32 and channels-last. A step is all from one batch to the next.

What counts: every operation that reaches the dispatcher and computes or copies. Views, shapes and
empty tensors do not. An operation on lists of tensors counts as often as CUDA launches it: its
lists are cut by the number of tensors and by 64 Ki elements. Some operations launch more than one
kernel (the gradient of a convolution), so this is a lower bound of kernels. Not in it: the casts of
weights where the precision is bfloat16. Optimizers of torch are counted as for lists of tensors;
on a GPU they are fused and launch less.

What is a sync: reading a value of a tensor, such as `float(t)`, `if t:` or `t.cpu()`; finding out
how many elements there are, such as `nonzero` or an index by a mask; a copy to the device that is
waited for. Every 50th step reads whether all losses were finite, and the progress that is shown
once a second reads the loss; neither is counted.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.benchmarks.turns import Line
from trainables.engine.checkpoints import InMemory
from trainables.engine.loop import Options, Training
from trainables.loading.image_table import ImageTable
from trainables.numerics.distributed import World
from trainables.tasks.registry import TRAINABLES

STEPS, BATCH = 3, 8
PHASES = ("augmentation", "forward", "backward", "optimizer")
_SMALL = {"backbone": "resnet18", "small_input": True}
_PAPER = {"views": "paper", "optimizer": "lars", "target_momentum": 0.996}
# name → trainable, side in px, configuration
RECIPES: dict[str, tuple[str, int, Mapping[str, Any]]] = {
    "byol, ResNet18, the paper's views, LARS": ("byol", 32, _SMALL | _PAPER),
    "byol, ResNet18, the report's views, AdamW": ("byol", 32, _SMALL),
    "classify, ResNet18, crop_flip, SGD": ("classify", 32, _SMALL),
    "classify, ResNet18, RandAugment, mixup, average": (
        "classify", 32, _SMALL | {"policy": "randaugment", "mixup": 0.2, "ema": 0.999},
    ),
    "rotation, ResNet18, SGD": ("rotation", 32, _SMALL),
    "segment, DeepLabV3 on ResNet50, jitter, SGD": (
        "segment", 64, {"network": "deeplabv3", "backbone": "resnet50", "color_jitter": 0.4,
                        "scales": [0.5, 2.0], "clip_grad_norm": 1.0},
    ),
}  # fmt: skip

_FREE = ("empty", "new_empty", "detach", "_unsafe_view", "lift_fresh", "alias", "set_", "resize_")
_COUNTING = ("nonzero", "masked_select", "bincount", "_unique2", "unique_consecutive", "equal")
# tensors of one launch by the number of lists, blocks of one launch, elements of a block
# (ATen/native/cuda/MultiTensorApply.cuh)
_LISTED, _BLOCKS, _CHUNK = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}, 320, 65536


@dataclass
class Count:
    """What one step or one batch hands over: launches by phase, and syncs by the operation."""

    launches: Counter[str] = field(default_factory=Counter)
    syncs: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)  # launches by operation

    @property
    def total(self) -> int:
        return sum(self.launches.values())


class Dispatcher(TorchDispatchMode):
    """Counts what passes; `steps` has one Count from each `begin` to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.phase = [Count()], PHASES[0]

    def begin(self) -> None:
        self.steps.append(Count())
        self.phase = PHASES[0]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs, count = kwargs or {}, self.steps[-1]
        name = func.overloadpacket.__name__
        if func._can_decompose():  # in inference mode, operations arrive that consist of others
            with self:
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        if is_sync(name, args, kwargs):
            count.syncs[name] += 1
            found = placeholder(name, args, kwargs)
            if found is not None:
                return found
        found = func(*args, **kwargs)
        if any(_on_device(each) for each in tree_leaves((args, kwargs, found))):
            launched = launches(func, name, args)
            count.launches[self.phase] += launched
            count.names[name] += launched
        return found


class Makers(TorchFunctionMode):
    """Counts tensors that are made of Python's numbers on the device: their copy is waited for."""

    def __init__(self, counted: Dispatcher) -> None:
        super().__init__()
        self.counted = counted

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type != "cpu":
            self.counted.steps[-1].syncs["tensor"] += 1
        return func(*args, **kwargs)


def is_sync(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the CPU would have to wait for a GPU."""
    if name == "_local_scalar_dense" or name in _COUNTING:
        return _on_device(args[0])
    if name == "index":
        return any(each is not None and each.dtype == torch.bool for each in args[1])
    if name in ("_to_copy", "copy_"):
        source = args[1] if name == "copy_" else args[0]
        target = args[0].device if name == "copy_" else kwargs.get("device", source.device)
        waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        return waits and (target.type == "cpu") != (source.device.type == "cpu")
    return False


def _on_device(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type != "cpu"


def placeholder(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a sync returns in place of content that is not there; None: what it would itself."""
    first = args[0]
    if name == "_local_scalar_dense":
        return True if first.dtype == torch.bool else math.inf if first.is_floating_point() else 1
    if name == "nonzero":
        return first.new_empty((1, first.ndim), dtype=torch.int64)
    if name == "index":
        return first.new_empty((1,))
    if name == "bincount":
        return first.new_empty((kwargs.get("minlength") or args[2],), dtype=torch.int64)
    if name == "_to_copy" and first.device.type != "cpu":
        return torch.ones(first.shape, dtype=kwargs.get("dtype") or first.dtype)
    return None


def launches(func: Any, name: str, args: Sequence[Any]) -> int:
    """How many kernels an operation stands for."""
    returned = func._schema.returns
    is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returned)
    if func.namespace == "prim" or name.startswith(_FREE) or is_view:
        return 0
    lists = [each for each in args if isinstance(each, list | tuple) and _holds_tensors(each)]
    if not name.startswith(("_foreach", "_fused")):
        return 1
    sizes = [[tensor.numel() for tensor in each] for each in lists]
    if any(other != sizes[0] for other in sizes[1:]):
        return len(sizes[0])  # lists that do not match are worked off one by one
    written = len(sizes) + (not name.endswith("_"))
    blocks = sum(math.ceil(size / _CHUNK) for size in sizes[0])
    norm = name == "_foreach_norm"  # each tensor's parts are summed by one more launch
    return max(math.ceil(len(sizes[0]) / _LISTED[written]), math.ceil(blocks / _BLOCKS)) + norm


def _holds_tensors(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, Tensor) for value in values)


def table_of(side: int, masks: bool) -> ImageTable:
    """Black images in memory: enough for the steps of an epoch and two batches of evaluation."""
    count = (STEPS + 2) * BATCH
    rows, numbers = np.arange(count), np.arange(count) % 10
    images: Any = np.zeros((count, 3, side, side), np.uint8)
    parts = {"train": rows[: STEPS * BATCH], "val": rows[STEPS * BATCH :], "test": rows[:0]}
    classes = tuple(f"class {number}" for number in range(10))
    marked: Any = np.zeros((count, side, side), np.uint8) if masks else None
    return ImageTable(images, numbers, parts, classes, side, "black", masks=marked)


def training_of(recipe: str, device: str = "meta", **values: Any) -> Training:
    """A training of a recipe whose model has no content. values: of its configuration."""
    name, side, settings = RECIPES[recipe]
    kind = TRAINABLES[name]
    shape = {"dataset": "d", "batch_size": BATCH, "epochs": 2, "weights": "random"}
    config = kind.Config.model_validate(shape | dict(settings) | values)
    table = table_of(side, kind.NEEDS == "masks")
    options = Options(world=World(0, 1, torch.device(device)))
    training = Training(kind, config, table, InMemory(), options)
    training.trainable.model.to(memory_format=torch.channels_last)
    for group in training.optimizer.param_groups:
        if "foreach" in group:  # torch chooses by the device; one that is fused launches less
            group["foreach"] = True
    training._shown = math.inf  # the progress, which is shown once a second, reads the loss
    return training


@contextmanager
def watched(training: Training, counted: Dispatcher) -> Iterator[None]:
    """Tell the dispatcher where in a step the loop is."""
    trainable = training.trainable

    def at(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def told(*args: Any) -> Any:
            counted.phase = phase
            found = function(*args)
            counted.phase = "backward"
            return found

        return told

    def begins(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def told(*args: Any) -> Any:
            counted.begin()
            return function(*args)

        return told

    def enters(module: nn.Module, args: Any) -> None:
        counted.phase = "forward"

    def steps(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        counted.phase = "optimizer"

    trainable.counted = begins(trainable.counted)  # type: ignore[method-assign]
    trainable.evaluate = begins(trainable.evaluate)  # type: ignore[method-assign]
    trainable.validated = begins(trainable.validated)  # type: ignore[method-assign]
    trainable.loss = at("augmentation", trainable.loss)  # type: ignore[method-assign]
    hooks = [
        training.model.register_forward_pre_hook(enters),
        training.optimizer.register_step_pre_hook(steps),
    ]
    with counted, Makers(counted):
        yield
    for hook in hooks:
        hook.remove()


def count(recipe: str, **values: Any) -> tuple[Count, Count]:
    """What a training step hands over, one of those that are all alike, and what a batch of
    evaluation does, with the sums over the batches before it."""
    training, counted = training_of(recipe, **values), Dispatcher()
    training.trainable.evaluated_at_once = lambda side: BATCH  # type: ignore[method-assign]
    with watched(training, counted):
        training.train_epoch()
        step = counted.steps[-2]
        training.evaluate("val")
    return step, counted.steps[-2]


def measure(turns: int) -> list[Line]:
    lines = []
    for recipe in RECIPES:
        step, batch = count(recipe)
        phases = ", ".join(f"{step.launches[phase]} {phase}" for phase in PHASES)
        lines += [
            Line(f"{recipe}: launches of a step", f"{step.total} ({phases})", "", 1),
            Line("syncs of a step", _shown(step.syncs), "0", 1),
            Line("syncs of a batch of evaluation", _shown(batch.syncs), "0", 1),
        ]
    return lines


def _shown(syncs: Mapping[str, int]) -> str:
    named = ", ".join(f"{count} {name}" for name, count in syncs.items())
    return f"{sum(syncs.values())}" + (f" ({named})" if named else "")
