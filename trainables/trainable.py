"""The contract: what a class must say so that the one worker loop can train it.

A trainable is a model and four verbs: `loss` (one training step's scalar), `evaluate` (sums over
a batch), `metrics` (sums → figures) and `set_training` (what trains, what stays frozen).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.models.modules import Encoding
from trainables.numerics import randomness
from trainables.training_config import TrainableConfig
from trainables.transforms.geometry import normalise


@dataclass(frozen=True)
class Batch:
    """Samples on the training device.

    images: (B, 3, S, S) uint8 in [0, 255]; labels: (B,) int64, or of a data set with masks
    (B, S, S) uint8 class ids; indices: (B,) int64, the samples' numbers in the data set; seed and
    epoch count the randomness of augmentation.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    seed: int
    epoch: int

    def parts(self, count: int) -> "list[Batch]":
        """The same samples in `count` parts, sizes differing by one at most."""
        pieces = zip(
            self.images.tensor_split(count),
            self.labels.tensor_split(count),
            self.indices.tensor_split(count),
            strict=True,
        )
        return [Batch(*piece, self.seed, self.epoch) for piece in pieces]

    def uniform(self, draws: int) -> Tensor:
        """(B, draws) uniforms in [0, 1) that depend on seed, epoch and each sample alone."""
        return randomness.uniform(self.seed, self.epoch, self.indices, draws)


class Trainable(ABC):
    """One task. Subclasses set the class attributes and build `self.model` in `__init__`."""

    Config: ClassVar[type[TrainableConfig]]
    FIGURES: ClassVar[tuple[str, ...]]  # reported for each split: `loss` → val/loss, test/loss
    SELECT: ClassVar[tuple[str, Literal["min", "max"]]]  # the metric that chooses the checkpoint
    PREDICTS: ClassVar[Literal["classes", "masks"] | None]  # what its model says of an image
    NEEDS: ClassVar[Literal["labels", "masks"] | None] = "labels"  # of the data set
    EVALUATED: ClassVar[tuple[int, int]] = 512, 128  # images at once on a worker, of so many px
    INPUTS: ClassVar[int] = 1  # images of one sample that its model takes
    PROBED: ClassVar[bool] = False  # whether its features are watched while it learns
    MAPPED: ClassVar[bool] = False  # whether t-SNE maps of its features are drawn
    WATCHED: ClassVar[bool] = False  # whether its masks of some images are drawn
    watched: Sequence[str] = ()  # which, by name; none: some of validation
    model: Encoding
    width: int  # of the encoder's features

    @abstractmethod
    def __init__(self, config: Any, data: DataInfo) -> None:
        """Build `self.model` from the current torch seed. Raises ValueError on unfit data."""

    @classmethod
    def evaluated_at_once(cls, side: int) -> int:
        """How many images of `side` px a worker evaluates at once: of larger ones fewer, so that
        evaluation takes no more memory than training."""
        count, usual = cls.EVALUATED
        return max(1, min(count, count * usual**2 // side**2))

    @classmethod
    def check(cls, config: Any, data: DataInfo) -> None:
        """Before anything starts: raises ValueError, one line, where they do not fit."""
        return None

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss over the batch, a scalar. model: `self.model`, possibly wrapped by DDP."""

    @abstractmethod
    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over the batch, float64 or int64, on the device; they add up over batches and
        ranks."""

    @abstractmethod
    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Sums over a whole split → one value for each of FIGURES, and others that not every data
        set has."""

    def absent(self, sums: Mapping[str, Tensor]) -> list[str]:
        """Classes that a whole split does not show, where that is left out of the metrics."""
        return []

    def set_training(self, training: bool) -> None:
        """Switch between training and evaluation mode; frozen parts decide for themselves."""
        self.model.train(training)

    @classmethod
    def select(cls, config: Mapping[str, Any]) -> tuple[str, Literal["min", "max"]]:
        """The metric that chooses the checkpoint, where the configuration has a say in it."""
        return cls.SELECT

    def encoder_loaded(self) -> None:  # noqa: B027
        """Called once when the encoder has the weights that it starts from."""

    def after_step(self, progress: float) -> None:  # noqa: B027
        """Called after every optimizer step on every rank. progress: (0, 1] of the training."""

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) uint8 → (B, D) features, in evaluation mode."""
        found: Tensor = self.model.encoder(normalise(images))
        return found


def classification_sums(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """logits: (B, K), labels: (B,) → summed cross-entropy, number correct, number seen."""
    logits = logits.float()
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    correct = (logits.argmax(1) == labels).sum()
    count = torch.tensor(len(labels), device=labels.device)
    return {"loss": loss.double(), "correct": correct.double(), "count": count.double()}


def classification_metrics(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean cross-entropy (nats) and accuracy in [0, 1]."""
    count = float(sums["count"])
    return {"loss": float(sums["loss"]) / count, "accuracy": float(sums["correct"]) / count}
