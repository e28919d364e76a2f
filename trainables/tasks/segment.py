"""Segments images: a class for every pixel, by FCN-32s on VGG16 or DeepLabV3 on ResNet50."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.dataset import IGNORED, DataInfo
from trainables.models.modules import Encoding
from trainables.models.segmentation import DeepLabV3, Fcn32s
from trainables.monitoring.iou import class_iou, confusion, mean_iou
from trainables.numerics.precision import constant
from trainables.schemas.segment import SegmentConfig, SegmentSchema
from trainables.trainable import Batch, Trainable
from trainables.transforms.geometry import normalize
from trainables.transforms.image_and_mask import DRAWS, scaled_crop

_AUXILIARY = 0.4  # weight of the auxiliary loss (arXiv:1612.01105, section 4)


class Segment(SegmentSchema, Trainable):
    """Minimizes the cross-entropy over the pixels that count.

    It is averaged image by image, so that it does not depend on how a batch is shared out.
    """

    EVALUATED = 8, 512
    WATCHED = True
    model: Encoding

    def __init__(self, config: Any, data: DataInfo) -> None:
        self.config: SegmentConfig = config
        self.classes, self.side = data.classes, config.crop or data.size
        self.watched = config.watch
        if config.network == "fcn32s":
            self.model, self.width = _fcn32s(config, data), config.hidden
        else:
            self.model, self.width = DeepLabV3(len(data.classes), data.channels), 2048

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        low, high = self.config.scales
        draws = batch.uniform(DRAWS)
        images, masks = scaled_crop(batch.images, batch.labels, draws, self.side, (low, high))
        logits = model(images)
        total = self._image_losses(logits["out"], masks).mean()
        if "aux" in logits:
            total = total + _AUXILIARY * self._image_losses(logits["aux"], masks).mean()
        return total

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.model(normalize(batch.images))["out"]
        loss = self._image_losses(logits, batch.labels).double()
        return {
            "confusion": confusion(logits.argmax(1), batch.labels, len(self.classes)),
            "loss": loss.sum(),
            "count": torch.ones_like(loss).sum(),
        }

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return FIGURES, and the IoU of every class that is present as `iou/<class>`."""
        matrix = sums["confusion"]
        ious = dict(zip(self.classes, class_iou(matrix).tolist(), strict=True))
        return {
            "loss": float(sums["loss"]) / float(sums["count"]),
            "miou": mean_iou(matrix),
            "accuracy": float(matrix.diagonal().sum()) / float(matrix.sum()),
            **{f"iou/{name}": value for name, value in ious.items() if value == value},
        }

    def absent(self, sums: Mapping[str, Tensor]) -> list[str]:
        shown = sums["confusion"].sum(1) > 0
        return [
            name for name, present in zip(self.classes, shown.tolist(), strict=True) if not present
        ]

    def _image_losses(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the loss per image, 0 where no pixel counts: (B, K, H, W), (B, H, W) → (B,)."""
        logits, counted = logits.float(), masks != IGNORED
        targets = torch.where(counted, masks, 0).long()
        weights = self.config.class_weights
        weight = constant(tuple(weights), logits.device) if weights else None
        pixels = F.cross_entropy(logits, targets, weight, reduction="none") * counted
        shares = counted if weight is None else weight[targets] * counted
        loss = pixels.sum((1, 2)) / shares.sum((1, 2)).clamp(min=1e-6)
        if self.config.dice:
            loss = loss + self.config.dice * dice_loss(logits, targets, counted)
        return loss


TRAINABLE = Segment


def _fcn32s(config: SegmentConfig, data: DataInfo) -> Fcn32s:
    return Fcn32s(len(data.classes), config.hidden, data.channels)


def dice_loss(logits: Tensor, targets: Tensor, counted: Tensor) -> Tensor:
    """Return 1 - Dice of every image, the mean over the classes that it shows (arXiv:1606.04797,
    equation 3 without its squares).

    logits: (B, K, H, W); targets: (B, H, W) int64 in [0, K); counted: (B, H, W) bool. Returns (B,),
    0 where no pixel counts.
    """
    guess = logits.softmax(1) * counted[:, None]
    truth = F.one_hot(targets, logits.shape[1]).permute(0, 3, 1, 2) * counted[:, None]
    both, guessed, true = (values.sum((2, 3)) for values in (guess * truth, guess, truth))
    shown = true > 0
    missed = torch.where(shown, 1 - 2 * both / (guessed + true).clamp(min=1e-6), 0.0)
    return missed.sum(1) / shown.sum(1).clamp(min=1)
