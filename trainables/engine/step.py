"""Makes one optimizer step: build the optimizer, set its values, compute a batch's gradient."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.numerics.precision import Autocast
from trainables.optimizers.registry import OPTIMIZERS
from trainables.trainable import Batch, Trainable
from trainables.training_config import TrainableConfig


def build_optimizer(config: TrainableConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the configured optimizer over the parameters that are trained."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return OPTIMIZERS[config.optimizer](learning, config)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the same learning rate for all parameters, from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_hyperparameters(optimizer: torch.optim.Optimizer, config: TrainableConfig) -> None:
    """Set momentum and weight decay as configured, from the next step on. The optimizer's state is
    kept, and groups with `decayed: False` keep a weight decay of 0."""
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = config.momentum
        if group.get("decayed", True):
            group["weight_decay"] = config.weight_decay


def backward(
    trainable: Trainable,
    model: nn.Module,
    batch: Batch,
    weight: float,
    parts: int,
    autocast: Autocast,
) -> Tensor:
    """Add `weight` times the gradient of the mean loss over the batch to the parameters.

    model: `trainable.model`, possibly wrapped by DDP; parts: the batch passes in so many parts one
    after the other; BatchNorm sees one part at a time, ranks exchange gradients in the last one.
    Returns the mean loss, a detached scalar.
    """
    total = torch.zeros((), device=batch.images.device)
    pieces = batch.parts(parts)
    for number, piece in enumerate(pieces):
        share = len(piece.indices) / len(batch.indices)
        with _without_sync(model) if number + 1 < len(pieces) else nullcontext():
            with autocast():
                loss = trainable.loss(model, piece)
            (loss * (weight * share)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach() * share
    return total


def _without_sync(model: nn.Module) -> AbstractContextManager[Any]:
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
