"""Learns without labels by how many quarter turns an image was rotated (arXiv:1803.07728)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.models.encoders import build_encoder
from trainables.models.modules import Model
from trainables.schemas.rotation import RotationConfig, RotationSchema
from trainables.trainable import Batch, Trainable, classification_metrics, classification_sums
from trainables.transforms.geometry import AUGMENTATIONS, rotate90


class Rotation(RotationSchema, Trainable):
    """Classifies the rotation into four; labels of the data set are not used."""

    EVALUATED = 128, 128  # in all four rotations

    def __init__(self, config: Any, data: DataInfo) -> None:
        self.config: RotationConfig = config
        encoder, self.width = build_encoder(
            config.backbone, config.small_input, data.channels, config.seen(data.size)
        )
        self.model = Model(encoder, nn.Linear(self.width, 4))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        count, augment = AUGMENTATIONS[self.config.augment]
        draws = batch.uniform(1 + count)
        images = augment(batch.images, draws[:, 1:], self.config.view_size)
        if self.config.rotations_per_image == 4:
            images, turns = _all_rotations(images)
        else:
            turns = (draws[:, 0] * 4).long()
            images = rotate90(images, turns)
        return F.cross_entropy(model(images).float(), turns)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        images, turns = _all_rotations(self.shown(batch.images))
        return classification_sums(self.model(images), turns)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return classification_metrics(sums)


TRAINABLE = Rotation


def _all_rotations(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return every image in each rotation: (B, 3, S, S) → (4B, 3, S, S) and turns (4B,) int64."""
    turns = torch.arange(4, device=images.device).repeat_interleave(len(images))
    return torch.cat([torch.rot90(images, k, (2, 3)) for k in range(4)]), turns
