"""Counts how often BatchNorm has passed a batch in Python, and adds it to its buffers once a step.

torch adds 1 to `num_batches_tracked` in each pass of each layer: an operation of its own for a
number that nothing reads, where BatchNorm has a fixed momentum.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Counted(nn.modules.batchnorm._BatchNorm):
    """Normalizes as BatchNorm does; `PassCounts` adds up its passes."""

    passes: int

    def forward(self, values: Tensor) -> Tensor:
        """values: (B, C, ...)."""
        if not self.training:
            return super().forward(values)
        cast(Any, self)._check_input_dim(values)
        self.passes += 1
        statistics = self.running_mean, self.running_var
        learned = self.weight, self.bias
        momentum = cast(float, self.momentum)
        return F.batch_norm(values, *statistics, *learned, True, momentum, self.eps)

    def _get_name(self) -> str:
        return type(self).__bases__[1].__name__  # it is printed as what it was


class CountedBatchNorm1d(_Counted, nn.BatchNorm1d):
    """Normalizes (B, C) or (B, C, L)."""


class CountedBatchNorm2d(_Counted, nn.BatchNorm2d):
    """Normalizes (B, C, H, W)."""


_COUNTED: dict[type[nn.Module], type[_Counted]] = {
    nn.BatchNorm1d: CountedBatchNorm1d,
    nn.BatchNorm2d: CountedBatchNorm2d,
}


class PassCounts:
    """Counts the passes of all BatchNorms of a model since the last `add`."""

    def __init__(self, model: nn.Module) -> None:
        """Make torch's own BatchNorms count in Python: others, such as those over several ranks, go
        on as they are. Parameters, buffers and names are kept."""
        self._layers: list[Any] = []
        for module in model.modules():
            if type(module) in _COUNTED and _is_plain(cast(Any, module)):
                module.__class__ = _COUNTED[type(module)]  # same state, other forward pass
                cast(Any, module).passes = 0
                self._layers.append(module)

    def add(self) -> None:
        """Add the passes to the buffers `num_batches_tracked`."""
        by_count: dict[int, list[Tensor]] = {}
        for layer in self._layers:
            if layer.passes:
                by_count.setdefault(layer.passes, []).append(layer.num_batches_tracked)
                layer.passes = 0
        for count, buffers in by_count.items():
            torch._foreach_add_(buffers, count)


def _is_plain(layer: Any) -> bool:
    """Return whether nothing but the buffer itself depends on it."""
    return layer.momentum is not None and layer.num_batches_tracked is not None
