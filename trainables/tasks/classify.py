"""Classifies images: trains from scratch, or fine-tunes the head, the late layers or all layers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.models.encoders import build_encoder
from trainables.models.modules import Model
from trainables.schemas.classify import ClassifyConfig, ClassifySchema
from trainables.trainable import Batch, Trainable, classification_metrics, classification_sums
from trainables.transforms.geometry import AUGMENTATIONS, normalize

_LATE = ("layer4",)  # "late layers": the last residual stage, trained with the head


def mlp_head(width: int, classes: int) -> nn.Sequential:
    """Build the classifier of the report on Office-Home: (B, width) → (B, classes) logits."""
    return nn.Sequential(
        nn.Linear(width, 1024),
        nn.BatchNorm1d(1024),
        nn.Dropout(0.4),
        nn.ReLU(),
        nn.Linear(1024, 512),
        nn.BatchNorm1d(512),
        nn.Dropout(0.3),
        nn.ReLU(),
        nn.Linear(512, classes),
    )


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"linear": nn.Linear, "mlp": mlp_head}


class Classify(ClassifySchema, Trainable):
    """Minimizes the cross-entropy over the classes of the data set."""

    MAPPED = True

    def __init__(self, config: Any, data: DataInfo) -> None:
        self.config: ClassifyConfig = config
        encoder, self.width = build_encoder(config.backbone, config.small_input, data.channels)
        self.model = Model(encoder, HEADS[config.head](self.width, len(data.classes)))
        for part in self._frozen():
            part.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        if self.config.train == "full":
            return []
        kept = _LATE if self.config.train == "late" else ()
        return [part for name, part in self.model.encoder.named_children() if name not in kept]

    def set_training(self, training: bool) -> None:
        super().set_training(training)
        if self.config.frozen_batchnorm == "eval":
            for part in self._frozen():
                part.eval()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        draws, augment = AUGMENTATIONS[self.config.augment]
        images = augment(batch.images, batch.uniform(draws))
        logits = model(images).float()
        return F.cross_entropy(logits, batch.labels, label_smoothing=self.config.label_smoothing)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        return classification_sums(self.model(normalize(batch.images)), batch.labels)

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return classification_metrics(sums)


TRAINABLE = Classify
