"""Networks with an encoder that other networks can start from."""

from torch import Tensor, nn


class Encoding(nn.Module):
    """A model with an encoder that can be handed on: (B, 3, H, W) normalised float → (B, D)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder


class Model(Encoding):
    """An encoder and a head: (B, 3, H, W) normalised float → (B, outputs) logits."""

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__(encoder)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(images))
        return logits
