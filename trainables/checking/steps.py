"""Checks a trainable in one process, step by step: what it builds, computes and returns."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainables.checking.faults import Broken, doing, require
from trainables.loading.batches import BatchStream
from trainables.loading.image_table import ImageTable
from trainables.metrics import in_percent
from trainables.models.modules import Encoding
from trainables.numerics.distributed import ALONE
from trainables.numerics.seeds import derived_seed
from trainables.trainable import Batch, Trainable
from trainables.training_config import TrainableConfig

_MOST_NAMES = 3


def built(
    kind: type[Trainable], config: TrainableConfig, table: ImageTable, seed: int = 0
) -> Trainable:
    """Build a trainable as the loop does. Raises Broken."""
    torch.manual_seed(derived_seed("initialisation", seed))
    with doing("__init__"):
        trainable = kind(config, table.info)
    for name in ("config", "model", "width"):
        require(hasattr(trainable, name), f"__init__ sets no self.{name}: set it there")
    require(
        isinstance(trainable.model, Encoding),
        f"self.model is a {type(trainable.model).__name__}, and must be an Encoding: take "
        "`Model(encoder, head)` of trainables.models.modules, or a subclass of Encoding",
    )
    return trainable


def batch_of(trainable: Trainable, table: ImageTable, count: int = 8, epoch: int = 1) -> Batch:
    """Return the first training images as a batch. count: of at most so many."""
    rows = table.parts["train"][: count * (2 if trainable.MIXES else 1)]
    (tensors,) = BatchStream(table, [rows], ALONE.device)
    batch = Batch(*tensors, 0, epoch)
    batch = batch.with_partners() if trainable.MIXES else batch
    counts = trainable.counted(batch)
    if counts is None:
        return batch
    return Batch(
        batch.images, batch.labels, batch.indices, 0, epoch, counts.double().mean(), batch.partners
    )


def check_building(kind: type[Trainable], config: TrainableConfig, table: ImageTable) -> str:
    """The model follows the torch seed, has an encoder of features (B, D), and changes mode."""
    trainable, again, other = (built(kind, config, table, seed) for seed in (0, 0, 1))
    states = [item.model.state_dict() for item in (trainable, again, other)]
    changed = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    require(
        not changed,
        f"__init__ builds other weights from the same torch seed ({_few(changed)}): draw them with "
        "torch, from no generator of your own",
    )
    require(
        any(not torch.equal(states[0][name], states[2][name]) for name in states[0]),
        "__init__ builds the same weights from every torch seed: seeds would all be one Run",
    )
    batch = batch_of(trainable, table)
    trainable.set_training(False)
    with doing("features"):
        features = trainable.features(batch.images)
    wanted = (len(batch.images), trainable.width)
    require(
        tuple(features.shape) == wanted,
        f"the encoder gives {tuple(features.shape)} of {len(batch.images)} images, and must give "
        f"(B, self.width), here {wanted}: correct self.width or the encoder",
    )
    _check_modes(trainable)
    return f"builds: {sum(p.numel() for p in trainable.model.parameters()):,} parameters"


def _check_modes(trainable: Trainable) -> None:
    for training in (True, False):
        with doing("set_training"):
            trainable.set_training(training)
        modes = {module.training for module in trainable.model.modules()}
        require(
            training in modes,
            f"set_training({training}) leaves no part of the model in that mode: call "
            "super().set_training, then change what is frozen",
        )


def check_loss(kind: type[Trainable], config: TrainableConfig, table: ImageTable) -> str:
    """The loss is a finite float32 scalar that depends on seed, epoch and sample alone, and has a
    gradient."""
    losses, trainable = [], built(kind, config, table)
    for _ in range(2):
        trainable = built(kind, config, table)
        trainable.set_training(True)
        batch = batch_of(trainable, table)
        before = batch.images.clone()
        torch.manual_seed(derived_seed("step", 0))
        with doing("loss"):
            losses.append(trainable.loss(trainable.model, batch))
        require(isinstance(losses[-1], Tensor), f"loss returns a {type(losses[-1]).__name__}")
        require(torch.equal(before, batch.images), "loss changes batch.images in place: copy them")
    loss = losses[0].detach()
    require(
        loss.shape == () and loss.dtype == torch.float32,
        f"loss is {tuple(loss.shape)} {loss.dtype}, and must be a float32 scalar: return the mean "
        "over the batch of `.float()` values",
    )
    require(loss.isfinite(), f"loss is {float(loss)} on the first batch")
    require(
        torch.equal(*losses),
        f"loss gives {float(loss):.6g} and {float(losses[1].detach()):.6g} for the same batch: "
        "draw with batch.uniform(n), which depends on seed, epoch and sample alone",
    )
    with doing("the gradient of loss"):
        losses[1].backward()  # type: ignore[no-untyped-call]
    learning = dict(trainable.model.learning.named_parameters())
    without = [n for n, p in learning.items() if p.requires_grad and p.grad is None]
    require(
        not without,
        f"loss gives {_few(without)} no gradient: use them, or set requires_grad to False "
        "(two processes would wait for them for ever)",
    )
    require(any(p.grad is not None for p in learning.values()), "no parameter learns")
    return f"a training step: loss {float(loss):.4g}, the same again"


def check_evaluation(kind: type[Trainable], config: TrainableConfig, table: ImageTable) -> str:
    """The sums of parts add up to those of the whole, and become finite metrics."""
    trainable = built(kind, config, table)
    trainable.set_training(False)
    batch = batch_of(trainable, table, 9)
    whole = _sums(trainable, batch)
    kept = {name: value for name, value in whole.items() if isinstance(value, Tensor)}
    require(len(kept) == len(whole) > 0, "evaluate returns something that is no tensor")
    wrong = [n for n, value in whole.items() if value.dtype not in (torch.float64, torch.int64)]
    require(
        not wrong,
        f"evaluate returns {_few(wrong)} as {whole[wrong[0]].dtype if wrong else ''}: return sums "
        "as float64 or int64, with `.double()`, or rounding depends on the batch",
    )
    parts = [_sums(trainable, part) for part in _cut(batch, (5, 9))]
    for name, value in whole.items():
        added = parts[0][name] + parts[1][name]
        require(
            torch.allclose(value.double(), added.double(), rtol=1e-4, atol=1e-6),
            f"evaluate gives {name} {_number(value)} for 9 images, and {_number(added)} for 5 and "
            "4 of them: return sums, and divide in `metrics`",
        )
    empty = _sums(trainable, next(_cut(batch, (0, 9))))
    require(empty.keys() == whole.keys(), "evaluate returns other names for an empty batch")
    figures = _figures(trainable, whole)
    return "an evaluation: " + ", ".join(f"{name} {figures[name]:.4g}" for name in kind.FIGURES)


def _figures(trainable: Trainable, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
    with doing("metrics"):
        figures: Any = trainable.metrics(sums)
    require(isinstance(figures, Mapping), "metrics returns no mapping of name → number")
    missing = [name for name in trainable.FIGURES if name not in figures]
    require(not missing, f"metrics returns no {_few(missing)}, which FIGURES names")
    for name in trainable.FIGURES:
        value = figures[name]
        require(isinstance(value, float), f"metrics returns {name} as {type(value).__name__}")
        require(value == value and abs(value) != float("inf"), f"metrics: {name} is {value}")
        require(
            not in_percent(f"val/{name}") or 0 <= value <= 1,
            f"metrics: {name} is {value:.4g}, and a metric in % is a share from 0 to 1",
        )
    return dict(figures)


@torch.inference_mode()
def _sums(trainable: Trainable, batch: Batch) -> dict[str, Tensor]:
    with doing(f"evaluate of {len(batch.images)} images"):
        sums: Any = trainable.evaluate(batch)
    if not isinstance(sums, dict):
        raise Broken(f"evaluate returns a {type(sums).__name__}, not a dict of sums")
    return sums


def _cut(batch: Batch, ends: tuple[int, ...]) -> "Any":
    """Yield the parts of a batch up to each end."""
    start = 0
    for end in ends:
        part = slice(start, end)
        yield Batch(batch.images[part], batch.labels[part], batch.indices[part], 0, 0)
        start = end


def _number(value: Tensor) -> str:
    return f"{float(value.double().sum()):.6g}"


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def differing(first: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of a model that are not those of a state, bit for bit."""
    own = first.state_dict()
    return [name for name in own if not torch.equal(own[name].cpu(), state[name].cpu())]
