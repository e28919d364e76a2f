"""The gradient of one optimizer step, in parts where memory is short."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.trainable import Batch, Trainable


def backward(
    trainable: Trainable,
    model: nn.Module,
    batch: Batch,
    weight: float,
    parts: int,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Tensor:
    """Add `weight` times the gradient of the mean loss over the batch; returns that mean, detached.

    parts: passes that the batch is cut into. Ranks are in step at the last one only; BatchNorm sees
    one part at a time.
    """
    total = torch.zeros((), device=batch.images.device)
    pieces = batch.parts(parts)
    for number, piece in enumerate(pieces):
        share = len(piece.indices) / len(batch.indices)
        with _alone(model) if number + 1 < len(pieces) else nullcontext():
            with autocast():
                loss = trainable.loss(model, piece)
            (loss * (weight * share)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach() * share
    return total


def _alone(model: nn.Module) -> AbstractContextManager[Any]:
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
