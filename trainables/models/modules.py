"""Defines networks with an encoder whose weights other networks can start from."""

from torch import Tensor, nn


class Encoding(nn.Module):
    """A model whose encoder can be transferred: (B, 3, H, W) normalized float → (B, D)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder


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
