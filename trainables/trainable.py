"""Defines the contract of a trainable: what a class must define so that the one loop can train it.

A trainable is a model and four methods: `loss` (scalar of a training step), `evaluate` (sums over
a batch), `metrics` (sums → metrics) and `set_training` (what trains, what stays frozen).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.models.modules import Encoding
from trainables.numerics import randomness
from trainables.schemas.trainable import TrainableSchema
from trainables.training_config import TrainableConfig
from trainables.transforms.geometry import center_crop, normalize


@dataclass(frozen=True)
class Batch:
    """Samples on the training device.

    images: (B, 3, S, S) uint8 in [0, 255]; labels: (B,) int64, or with masks (B, S, S) uint8 class
    ids; indices: (B,) int64, numbers of the samples in the data set; seed and epoch decide the
    randomness of augmentation; counted: mean of `Trainable.counted` over the images of the whole
    batch, all ranks and parts together, a float64 scalar; None: this is the whole batch; partners:
    as many other training samples, drawn by seed, epoch and sample, where the trainable mixes;
    places: in evaluation, top and left in px of the windows of one image that the samples are.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    seed: int
    epoch: int
    counted: Tensor | None = None
    partners: "Batch | None" = None
    places: Sequence[tuple[int, int]] | None = None

    def parts(self, count: int) -> "list[Batch]":
        """Split the samples into `count` parts, whose sizes differ by one at most."""
        pieces = zip(
            self.images.tensor_split(count),
            self.labels.tensor_split(count),
            self.indices.tensor_split(count),
            strict=True,
        )
        others = [None] * count if self.partners is None else self.partners.parts(count)
        return [
            Batch(*piece, self.seed, self.epoch, self.counted, other)
            for piece, other in zip(pieces, others, strict=True)
        ]

    def with_partners(self) -> "Batch":
        """Return the first half of the samples, whose partners are the second half."""
        own, others = self.parts(2)
        return replace(own, partners=others)

    def uniform(self, draws: int) -> Tensor:
        """Draw (B, draws) uniforms in [0, 1) that depend on seed, epoch and sample alone."""
        return randomness.uniform(self.seed, self.epoch, self.indices, draws)


class Trainable(TrainableSchema, ABC):
    """One task to learn. Subclasses set the class attributes, and in `__init__` `self.config`,
    `self.model` and `self.width`."""

    EVALUATED: ClassVar[tuple[int, int]] = 512, 128  # images at once per worker, of so many px
    INPUTS: ClassVar[int] = 1  # images that its model takes per sample
    MAPPED: ClassVar[bool] = False  # whether t-SNE maps of its features are drawn
    MIXES: bool = False  # whether its training batches have partners
    WATCHED: ClassVar[bool] = False  # whether its masks of some images are drawn
    config: TrainableConfig
    watched: Sequence[str] = ()  # names of these images; none: three of validation
    model: Encoding
    width: int  # D of the features of the encoder

    @abstractmethod
    def __init__(self, config: Any, data: DataInfo) -> None:
        """Build `self.model` from the current torch seed. Raises ValueError on unfit data."""

    @classmethod
    def evaluated_at_once(cls, side: int) -> int:
        """Return how many images of `side` px a worker evaluates at once: fewer of larger ones, so
        that evaluation takes no more memory than training."""
        count, usual_side = cls.EVALUATED
        return max(1, min(count, count * usual_side**2 // side**2))

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a scalar. model: `self.model`, may be in DDP."""

    def counted(self, batch: Batch) -> Tensor | None:
        """Return how much counts in each image of a training batch, (B,) float64 ≥ 0, such as its
        pixels that are not ignored; None where the loss is a mean over images.

        The loop adds it up over all ranks and parts, and `loss` finds the mean in `batch.counted`.
        """
        return None

    @abstractmethod
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Return sums over the batch, float64 or int64, on the device. They are added over batches
        and ranks, so a mean is made in `metrics`. The batch may be empty."""

    @abstractmethod
    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Return a value for each of FIGURES from the sums over a whole split; others may be added,
        such as one per class."""

    def absent(self, sums: Mapping[str, Tensor]) -> list[str]:
        """Return the classes that no image of a split shows, where the metrics leave them out."""
        return []

    @property
    def keeps_features(self) -> bool:
        """Return whether it trains on the features of its frozen encoder, which are computed once:
        batches then hold (B, D) float32 in place of images."""
        return False

    def validated(self, sums: Mapping[str, Tensor]) -> None:  # noqa: B027
        """React to the sums over the validation split, before its metrics are made of them."""

    def one_class(self, sums: Mapping[str, Tensor]) -> str:
        """Return the class that is predicted for everything in a split; empty where there are
        several, or where the sums do not tell."""
        return ""

    def set_training(self, training: bool) -> None:
        """Switch between training and evaluation mode; override it where parts are frozen."""
        self.model.train(training)

    def encoder_loaded(self) -> None:  # noqa: B027
        """React to the first weights: called once, when the encoder has them."""

    def after_step(self, progress: float) -> None:  # noqa: B027
        """React to an optimizer step, on every rank. progress: (0, 1] of the whole training."""

    def shown(self, images: Tensor) -> Tensor:
        """Return what evaluation shows the model: (B, 3, S, S) uint8 → normalized, of `view_size`
        the center."""
        return normalize(center_crop(images, getattr(self.config, "view_size", None)))

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Compute features in evaluation mode: (B, 3, S, S) uint8 → (B, D)."""
        features: Tensor = self.model.encoder(self.shown(images))
        return features

    def projected(self, features: Tensor) -> Tensor | None:
        """Compute from features (B, D) in evaluation mode what the loss compares, (B, P); None
        where the loss sees the features themselves, or where it is not watched."""
        return None


def classification_sums(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Sum over a batch: logits (B, K), labels (B,) → cross-entropy, correct and seen images, and
    how often each class is `predicted`, (K,)."""
    logits = logits.float()
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    guesses = logits.argmax(1)
    correct = (guesses == labels).sum()
    count = torch.full((), len(labels), dtype=torch.float64, device=labels.device)
    predicted = torch.zeros(logits.shape[1], dtype=torch.int64, device=labels.device)
    return {
        "loss": loss.double(),
        "correct": correct.double(),
        "count": count,
        "predicted": predicted.index_add_(0, guesses, torch.ones_like(guesses)),
    }


def only_class(predicted: Tensor, classes: Sequence[str]) -> str:
    """Return the one class with predictions; empty if several have some. predicted: (K,) counts."""
    counts = predicted.tolist()
    named = [name for name, count in zip(classes, counts, strict=True) if count]
    return named[0] if len(named) == 1 else ""


def classification_metrics(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Return mean cross-entropy (nats) and accuracy in [0, 1] from `classification_sums`."""
    count = float(sums["count"])
    return {"loss": float(sums["loss"]) / count, "accuracy": float(sums["correct"]) / count}
