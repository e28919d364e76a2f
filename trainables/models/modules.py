"""Defines networks with an encoder whose weights other networks can start from."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Encoding(nn.Module):
    """A model whose encoder can be transferred: (B, 3, H, W) normalized float → (B, D)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def learning(self) -> "Encoding":
        """Return the model whose parameters the optimizer changes."""
        return self


class Model(Encoding):
    """An encoder and a head: (B, 3, H, W) normalized float, or its features (B, D) → (B, outputs)
    logits."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__(encoder)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoded(images))
        return logits

    def encoded(self, images: Tensor) -> Tensor:
        """Return features (B, D): of images, or as they are given."""
        features: Tensor = images if images.ndim == 2 else self.encoder(images)
        return features


class AveragedModel(Model):
    """A model that is trained, and the moving average of its weights, which is evaluated.

    `encoder` and `head` are the average, `trained` has those that learn. All of them, and the
    number of steps, are in its state.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(copy.deepcopy(model.encoder), copy.deepcopy(model.head))
        self.requires_grad_(False)
        self.trained = model
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._known: int | None = None  # the same number here, so that no step waits for a GPU

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits: in training of the weights that learn, in evaluation of the average."""
        if self.training:
            learning: Tensor = self.trained(images)
            return learning
        return super().forward(images)

    @property
    def learning(self) -> Encoding:
        return self.trained

    def start(self) -> None:
        """Copy the encoder, whose first weights have been loaded, to the one that learns."""
        self.trained.encoder.load_state_dict(self.encoder.state_dict())

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the average towards the trained weights: a ← d a + (1 - d) w.

        d is `decay`, and in the first steps (1 + step) / (10 + step), as TensorFlow's and timm's,
        so that the random beginning is forgotten. Statistics of BatchNorm are averaged alike.
        """
        buffer = self.get_buffer("steps")
        known = int(buffer) if self._known is None else self._known
        buffer.add_(1)
        self._known = known + 1
        steps = torch.tensor(self._known)
        moved = 1 - ((1 + steps) / (10 + steps)).clamp(max=decay)
        floats = [pair for pair in self._pairs() if pair[0].is_floating_point()]
        others = [pair for pair in self._pairs() if not pair[0].is_floating_point()]
        if floats:
            averages, trained = zip(*floats, strict=True)
            torch._foreach_lerp_(averages, trained, float(moved))
        if others:
            averages, trained = zip(*others, strict=True)
            torch._foreach_copy_(averages, trained)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._known = None

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        new = self.trained.state_dict()
        return [(value, new[name]) for name, value in self.state_dict().items() if name in new]
