"""Classifies images: trains from scratch, or fine-tunes the head, the late layers or all layers."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.models.encoders import build_encoder
from trainables.models.heads import Swept
from trainables.models.modules import AveragedModel, Model
from trainables.networks.layers import late_layers, parts_without
from trainables.schemas.classify import ClassifyConfig, ClassifySchema
from trainables.trainable import (
    Batch,
    Trainable,
    classification_metrics,
    classification_sums,
    only_class,
)
from trainables.transforms.image_changes import changes_of
from trainables.transforms.mixing import MIX_DRAWS, mix


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
    model: Model

    def __init__(self, config: Any, data: DataInfo) -> None:
        self.config: ClassifyConfig = config
        self.classes = data.classes
        encoder, self.width = build_encoder(
            config.backbone, config.small_input, data.channels, config.seen(data.size)
        )
        head = HEADS[config.head](self.width, len(data.classes))
        self.swept = Swept(head, config.lr_sweep) if config.lr_sweep else None
        self.model = Model(encoder, self.swept or head)
        self.MIXES = bool(config.mixup or config.cutmix)
        self.average = None if config.ema is None else AveragedModel(self.model)
        self.model = self.average or self.model
        self._freeze()

    def _freeze(self) -> None:
        """Freeze the parameters of the encoder that do not learn."""
        learning = {id(parameter) for parameter in self._learning()}
        for parameter in self._trained().parameters():
            if id(parameter) not in learning:
                parameter.requires_grad_(False)

    def _trained(self) -> nn.Module:
        """Return the encoder that learns, as far as one does."""
        return (self.model if self.average is None else self.average.trained).encoder

    def _learning(self) -> list[nn.Parameter]:
        """Return the parameters of the encoder that learn."""
        if self.config.train == "head":
            return []
        encoder = self._trained()
        return late_layers(encoder) if self.config.train == "late" else list(encoder.parameters())

    def _frozen(self) -> list[nn.Module]:
        """Return the parts of the encoder in which nothing learns; none where all of it does."""
        if self.config.train == "full":
            return []
        return list(parts_without(self._trained(), {id(p) for p in self._learning()}))

    def encoder_loaded(self) -> None:
        if self.average is not None:
            self.average.start()

    def after_step(self, progress: float) -> None:
        if self.average is not None and self.config.ema is not None:
            self.average.follow(self.config.ema)

    def set_training(self, training: bool) -> None:
        super().set_training(training)
        if self.config.frozen_batchnorm == "eval":
            for part in self._frozen():
                part.eval()

    @property
    def keeps_features(self) -> bool:
        return self.config.keep_features

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        return self.model.encoded(self.shown(images))

    def shown(self, images: Tensor) -> Tensor:
        """Return what evaluation shows the model; features (B, D) stay as they are."""
        return images if images.ndim == 2 else super().shown(images)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if batch.images.ndim == 2:
            return self._loss_on_features(model, batch)
        count, change = changes_of(self.config)
        if batch.partners is None:
            logits = model(change(batch.images, batch.uniform(count))).float()
            return self._cross_entropy(logits, batch.labels)
        draws = batch.uniform(2 * count + MIX_DRAWS)
        images = change(batch.images, draws[:, :count])
        partners = change(batch.partners.images, draws[:, count : 2 * count])
        shared = self.config.mixup, self.config.cutmix
        mixed, shares = mix(images, partners, draws[:, 2 * count :], *shared)
        logits = model(mixed).float()
        own, other = (
            self._cross_entropy(logits, labels, "none")
            for labels in (batch.labels, batch.partners.labels)
        )
        return (shares * own + (1 - shares) * other).mean()

    def _loss_on_features(self, model: nn.Module, batch: Batch) -> Tensor:
        logits = model(batch.images).float()
        if logits.ndim == 2:
            return self._cross_entropy(logits, batch.labels)
        losses = torch.stack([self._cross_entropy(one, batch.labels) for one in logits])
        # each head has the gradient that it would have alone; their mean is shown
        return losses.sum() + (losses.mean() - losses.sum()).detach()

    def _cross_entropy(self, logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
        smoothing = self.config.label_smoothing
        return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction=reduction)

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        images = self.shown(batch.images)
        sums = classification_sums(self.model(images), batch.labels)
        if self.swept is not None:
            logits = self.swept.each(self.model.encoded(images))
            each = [classification_sums(one, batch.labels) for one in logits]
            for name in ("loss", "correct"):
                sums[f"{name}_of_each"] = torch.stack([found[name] for found in each])
        return sums

    def validated(self, sums: Mapping[str, Tensor]) -> None:
        if self.swept is not None:
            self.swept.choose(sums["correct_of_each"], sums["loss_of_each"])

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        if self.swept is None:
            return classification_metrics(sums)
        names, chosen = ("loss", "correct"), self.swept.chosen
        own = {name: sums[f"{name}_of_each"][chosen] for name in names}
        return classification_metrics({**sums, **own}) | {"head_lr": self.swept.rate}

    def one_class(self, sums: Mapping[str, Tensor]) -> str:
        return only_class(sums["predicted"], self.classes)


TRAINABLE = Classify
