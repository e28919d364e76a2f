"""Makes one optimizer step: build the optimizer, set its values, compute a batch's gradient."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainables.engine.checkpoints import Unrecoverable
from trainables.models.heads import Swept
from trainables.models.modules import Encoding
from trainables.networks.layers import layers_of
from trainables.numerics.distributed import World
from trainables.numerics.precision import Autocast
from trainables.optimizers.contract import Group
from trainables.optimizers.registry import OPTIMIZERS
from trainables.trainable import Batch, Trainable
from trainables.training_config import TrainableConfig

_LEAST_SCALE = 2.0**-10  # of losses; below, gradients are not finite for another reason


def build_optimizer(config: TrainableConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Return the configured optimizer over the parameters that are trained."""
    return OPTIMIZERS[config.optimizer](parameter_groups(config, model), config)


def parameter_groups(config: TrainableConfig, model: nn.Module) -> list[Group]:
    """Return the parameters that are trained, those with the same rate and decay in one group.

    model: an `Encoding` where the encoder or its layers have rates of their own. The head has the
    rate of the configuration; layer k of the encoder, counted from the head and from 1, that times
    backbone_lr_factor times layer_lr_decay^k (as in arXiv:2106.08254, A).
    """
    factors: dict[int, float] = {}
    if (config.backbone_lr_factor, config.layer_lr_decay) != (1.0, 1.0):
        for depth, layer in enumerate(
            reversed(layers_of(cast(Encoding, model).learning.encoder)), start=1
        ):
            factor = config.backbone_lr_factor * config.layer_lr_decay**depth
            factors |= dict.fromkeys(map(id, layer), factor)
    for swept in (module for module in model.modules() if isinstance(module, Swept)):
        for head, rate in zip(swept.heads, swept.rates, strict=True):
            factors |= dict.fromkeys(map(id, head.parameters()), rate / config.lr)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decayed = config.decayed == "all" or parameter.ndim > 1
            place = factors.get(id(parameter), 1.0), decayed
            groups.setdefault(place, []).append(parameter)
    return [_group(parameters, *place, config) for place, parameters in groups.items()]


def _group(
    parameters: list[nn.Parameter], factor: float, decayed: bool, config: TrainableConfig
) -> Group:
    """Return a group that says only what differs from the configuration."""
    group: Group = {"params": parameters}
    if factor != 1.0:
        group |= {"rate_factor": factor, "lr": factor * config.lr}
    if not decayed:
        group |= {"decayed": False, "weight_decay": 0.0}
    return group


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate from the next step on: of each group its factor times `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_factor", 1.0)


def set_hyperparameters(optimizer: torch.optim.Optimizer, config: TrainableConfig) -> None:
    """Set momentum and weight decay as configured, from the next step on. The optimizer's state is
    kept, and groups with `decayed: False` keep a weight decay of 0."""
    for group in optimizer.param_groups:
        if "momentum" in group:
            group["momentum"] = config.momentum
        if group.get("decayed", True):
            group["weight_decay"] = config.weight_decay


def make_step(
    scale: "LossScale",
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    config: TrainableConfig,
    epoch: int,
) -> None:
    """Make an optimizer step. Raises Unrecoverable where no loss scale gives finite gradients."""
    try:
        scale.step(optimizer, model, config.clip_grad_norm)
    except FloatingPointError as error:
        cure = "set precision to float32, or lower lr"
        raise Unrecoverable(f"{error} at epoch {epoch}: {cure}") from error


def with_counted(trainable: Trainable, batch: Batch, world: World, images: int) -> Batch:
    """Return the batch with the mean of what counts in an image of the global batch, where the
    trainable counts. Every rank takes part. images: of the global batch, over all ranks."""
    counted = trainable.counted(batch)
    if counted is None:
        return batch
    return replace(batch, counted=world.all_reduce_sum(counted.sum()) / images)


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


def clip_gradients(model: nn.Module, limit: float) -> None:
    """Scale all gradients together so that their norm is `limit` at most, as torch's
    `clip_grad_norm_` does, with few operations on any device."""
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    if gradients:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0))


class LossScale:
    """Scales losses where the model runs in float16, so that small gradients do not become zero,
    and leaves out steps whose gradients then are too large (arXiv:1710.03740). Otherwise it changes
    nothing.
    """

    def __init__(self, autocast: torch.dtype | None, device: torch.device) -> None:
        used = autocast is torch.float16
        self.skipped = 0  # steps left out so far
        self._scaler = torch.amp.GradScaler(device.type, enabled=used)
        self._scaler.scale(torch.zeros((), device=device))  # it takes its first scale by this

    @property
    def used(self) -> bool:
        """Return whether losses are scaled."""
        return self._scaler.is_enabled()

    @property
    def factor(self) -> float:
        """Return the number that a loss is multiplied with, a power of two; 1 where none is."""
        return self._scaler.get_scale()

    def step(
        self, optimizer: torch.optim.Optimizer, model: nn.Module, clip_norm: float | None
    ) -> None:
        """Change the parameters by their gradients, whose norm is clipped, unless one is too large
        for float16. Raises FloatingPointError where no scale makes them fit."""
        self._scaler.unscale_(optimizer)
        if clip_norm is not None:
            clip_gradients(model, clip_norm)
        before = self.factor
        self._scaler.step(optimizer)
        self._scaler.update()
        self.skipped += self.factor < before
        if self.factor < _LEAST_SCALE:
            raise FloatingPointError("gradients do not fit float16")

    def state(self) -> dict[str, Any]:
        """Return what `load` needs to go on."""
        return self._scaler.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on with the scale of a checkpoint; an empty one is of a training without scale."""
        if self.used and state:
            self._scaler.load_state_dict(dict(state))


def _without_sync(model: nn.Module) -> AbstractContextManager[Any]:
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def check_finite(first_bad: Tensor, epoch: int, optimizer: torch.optim.Optimizer) -> None:
    """Raise Unrecoverable if a loss was not finite. first_bad: the first such step of the epoch,
    from 0; infinity without one."""
    step = float(first_bad)
    if math.isfinite(step):
        rate = max(group["lr"] for group in optimizer.param_groups)
        raise Unrecoverable(
            f"the loss is not finite at epoch {epoch}, step {int(step) + 1}: most likely the "
            f"learning rate ({rate:g}) is too high; lower lr, or set warmup_epochs or "
            "clip_grad_norm"
        )
