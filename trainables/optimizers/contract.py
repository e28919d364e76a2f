"""Defines what an optimizer is built from, and what its parameter groups may contain."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import nn


class Settings(Protocol):
    """The part of a training's configuration that optimizers read."""

    @property
    def lr(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


# The parameters that learn, and the settings. A parameter group with `decayed: False` keeps its
# weight decay of 0 when `weight_decay` changes during training.
Build = Callable[[Sequence[nn.Parameter], Settings], torch.optim.Optimizer]
