"""Trains several heads on the same features, each at its own learning rate."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Swept(nn.Module):
    """Copies of one head that begin alike: in training all answer, afterwards the chosen one.

    Features (B, D) → logits: (K, B, C) of all K heads in training mode, else (B, C). rates: the
    learning rate of each head. `chosen` is part of the weights.
    """

    chosen: Tensor

    def __init__(self, head: nn.Module, rates: Sequence[float]) -> None:
        super().__init__()
        self.rates = tuple(rates)
        self.heads = nn.ModuleList(copy.deepcopy(head) for _ in rates)
        self.register_buffer("chosen", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        if self.training:
            return self.each(features)
        logits: Tensor = self.heads[int(self.chosen)](features)
        return logits

    def each(self, features: Tensor) -> Tensor:
        """Compute the logits of every head: (B, D) → (K, B, C)."""
        return torch.stack([head(features) for head in self.heads])

    def choose(self, correct: Tensor, loss: Tensor) -> None:
        """Choose the head with most images right, the one with the lower loss of equals.

        correct, loss: (K,) sums over the same images.
        """
        pairs = list(zip(correct.tolist(), (-loss).tolist(), strict=True))
        self.chosen.fill_(pairs.index(max(pairs)))

    @property
    def rate(self) -> float:
        """Return the learning rate of the chosen head."""
        return self.rates[int(self.chosen)]
