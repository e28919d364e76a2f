"""Defines networks with an encoder whose weights other networks can start from."""

from torch import Tensor, nn


class Encoding(nn.Module):
    """A model whose encoder can be transferred: (B, 3, H, W) normalized float → (B, D)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder


class Model(Encoding):
    """An encoder and a head: (B, 3, H, W) normalized float → (B, outputs) logits."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__(encoder)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(images))
        return logits
