"""Segments images: a class for every pixel, by FCN-32s on VGG16 or DeepLabV3 on a ResNet."""

import math
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
from trainables.trainable import Batch, Trainable, only_class
from trainables.transforms.geometry import normalize
from trainables.transforms.image_and_mask import (
    COLOR_DRAWS,
    DRAWS,
    jittered_crop,
    mask_crop,
    scaled_crop,
)
from trainables.transforms.windows import joined, joined_masks

_LEAST = 1e-6  # keeps a batch in which nothing counts from 0 / 0
_AUXILIARY = 0.4  # weight of the auxiliary loss (arXiv:1612.01105, section 4)


class Segment(SegmentSchema, Trainable):
    """Minimizes the cross-entropy over the pixels that count.

    It is the mean over all of them in the global batch, with `class_weights` the weighted mean, as
    torch's `cross_entropy`. The Dice loss is a mean over images.
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
            self.model = DeepLabV3(len(data.classes), data.channels, config.backbone)
            self.width = self.model.width

    def counted(self, batch: Batch) -> Tensor:
        """Return the weight of the pixels of each training crop that count, (B,) float64."""
        low, high = self.config.scales
        masks = mask_crop(batch.labels, batch.uniform(DRAWS), self.side, (low, high))
        return self._pixel_weights(masks).sum((1, 2), dtype=torch.float64)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        images, masks = self._crops(batch)
        weights = self._pixel_weights(masks)
        counted = batch.counted
        if counted is None:
            counted = weights.sum(dtype=torch.float64) / len(images)
        logits = model(images)
        total = self._loss(logits["out"], masks, counted)
        if "aux" in logits:
            total = total + _AUXILIARY * self._loss(logits["aux"], masks, counted)
        return total

    def _crops(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the augmented pairs: (B, 3, side, side) normalized and (B, side, side) uint8."""
        low, high = self.config.scales
        pair, strength = (batch.images, batch.labels), self.config.color_jitter
        if not strength:
            return scaled_crop(*pair, batch.uniform(DRAWS), self.side, (low, high))
        draws = batch.uniform(DRAWS + COLOR_DRAWS)
        return jittered_crop(*pair, draws, (self.side, (low, high)), strength)

    def _loss(self, logits: Tensor, masks: Tensor, counted: Tensor) -> Tensor:
        """Return the loss of a part of a batch, a float32 scalar; 0 where no pixel of the whole
        batch counts. counted: as in `Batch`."""
        pixels = self._pixel_losses(logits, masks).sum() / len(masks)
        loss = pixels / counted.clamp(min=_LEAST).float()
        if self.config.dice:
            loss = loss + self.config.dice * dice_loss(logits, masks).mean()
        return loss

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Sum over images at full resolution. One that lies in windows gets the mean of their
        logits where they overlap."""
        masks = batch.labels
        if batch.places:
            at_once = self.evaluated_at_once(masks.shape[-1])
            parts = torch.split(batch.images, at_once)
            pieces = (self.model(normalize(part))["out"] for part in parts)
            logits, masks = joined(pieces, batch.places), joined_masks(masks, batch.places)
        else:
            logits = self.model(normalize(batch.images))["out"]
        sums = {
            "confusion": confusion(logits.argmax(1), masks, len(self.classes)),
            "loss": self._pixel_losses(logits, masks).sum(dtype=torch.float64),
            "count": self._pixel_weights(masks).sum(dtype=torch.float64),
        }
        if self.config.dice:
            dice = dice_loss(logits, masks).double()
            sums |= {"dice": dice.sum(), "images": torch.ones_like(dice).sum()}
        return sums

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return FIGURES, and the IoU of every class that is present as `iou/<class>`."""
        matrix = sums["confusion"]
        ious = dict(zip(self.classes, class_iou(matrix).tolist(), strict=True))
        loss = float(sums["loss"]) / max(float(sums["count"]), _LEAST)
        if self.config.dice:
            loss += self.config.dice * float(sums["dice"]) / float(sums["images"])
        hits, pixels = float(matrix.diagonal().sum()), float(matrix.sum())
        return {
            "loss": loss,
            "miou": mean_iou(matrix),
            "accuracy": hits / pixels if pixels else math.nan,
            **{f"iou/{name}": value for name, value in ious.items() if value == value},
        }

    def absent(self, sums: Mapping[str, Tensor]) -> list[str]:
        shown = sums["confusion"].sum(1) > 0
        return [
            name for name, present in zip(self.classes, shown.tolist(), strict=True) if not present
        ]

    def one_class(self, sums: Mapping[str, Tensor]) -> str:
        return only_class(sums["confusion"].sum(0), self.classes)

    def _pixel_weights(self, masks: Tensor) -> Tensor:
        """Return the weight of each pixel in the loss, 0 where it does not count: (B, H, W)."""
        counted = (masks != IGNORED).float()
        if not self.config.class_weights:
            return counted
        weights = constant(tuple(self.config.class_weights), masks.device)
        return weights[torch.where(masks != IGNORED, masks, 0).long()] * counted

    def _pixel_losses(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the weighted cross-entropy of each pixel, 0 where it does not count: (B, K, H, W),
        (B, H, W) → (B, H, W)."""
        targets = torch.where(masks != IGNORED, masks, 0).long()
        losses = F.cross_entropy(logits.float(), targets, reduction="none")
        return losses * self._pixel_weights(masks)


TRAINABLE = Segment


def _fcn32s(config: SegmentConfig, data: DataInfo) -> Fcn32s:
    slim = config.backbone == "vgg16_slim"
    return Fcn32s(len(data.classes), config.hidden, data.channels, config.padding, slim)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return 1 - Dice of every image, the mean over the classes that it shows (arXiv:1606.04797,
    equation 3 without its squares).

    logits: (B, K, H, W); masks: (B, H, W) uint8 class ids. Returns (B,), 0 where no pixel counts.
    """
    logits, counted = logits.float(), masks != IGNORED
    targets = torch.where(counted, masks, 0).long()
    guess = logits.softmax(1) * counted[:, None]
    truth = F.one_hot(targets, logits.shape[1]).permute(0, 3, 1, 2) * counted[:, None]
    both, guessed, true = (values.sum((2, 3)) for values in (guess * truth, guess, truth))
    shown = true > 0
    missed = torch.where(shown, 1 - 2 * both / (guessed + true).clamp(min=1e-6), 0.0)
    return missed.sum(1) / shown.sum(1).clamp(min=1)
