"""Defines what an optimizer is built from, and what its parameter groups may contain."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch


class Settings(Protocol):
    """The part of a training's configuration that optimizers read."""

    @property
    def lr(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


# A parameter group of torch: `params`, and what differs from the settings. `decayed: False`: its
# weight decay is 0 and stays so when `weight_decay` changes during training. `rate_factor`: its
# learning rate is that of the training times this.
Group = dict[str, Any]
Build = Callable[[Sequence[Group], Settings], torch.optim.Optimizer]
