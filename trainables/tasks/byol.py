"""Bootstrap Your Own Latent: learning from images without labels (arXiv:2006.07733).

An online network learns to predict what a target network says of another view of the same image;
the target follows the online network as a moving average and has no gradient.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from trainables.config import PositiveInt
from trainables.dataset import DataInfo
from trainables.models.encoders import build_encoder
from trainables.models.modules import Encoding
from trainables.trainable import Batch, Trainable
from trainables.training_config import Backbone, TrainableConfig
from trainables.transforms.views import VIEWS


class ByolConfig(TrainableConfig):
    """The second report's recipe. The paper's: optimizer lars, lr 0.2 * batch_size / 256,
    weight_decay 1.5e-6, schedule cosine with warm-up, views `paper`, target_momentum 0.996,
    momentum_schedule cosine (arXiv:2006.07733, 3.3)."""

    backbone: Backbone = "resnet50"
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    batch_size: Annotated[int, Field(ge=2)] = Field(
        256, description="images per step, over all workers"
    )
    optimizer: Literal["sgd", "adamw", "lars"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["cosine", "step", "constant", "poly"] = "constant"
    views: Literal["report", "paper", "simclr"] = Field(
        "report",
        description="augmentations of the two views; simclr: the strongest color jitter",
    )
    min_scale: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.08, description="the smallest share of an image's area that a view shows"
    )
    hidden: PositiveInt = Field(4096, description="width of the hidden layer of both MLPs")
    projection: PositiveInt = Field(256, description="width of the projection")
    target_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="share of the target network that each step keeps"
    )
    momentum_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: rises from target_momentum to 1 over all epochs"
    )
    select: Literal["loss", "last"] = Field(
        "loss", description="the checkpoint that later stages take: lowest val/loss, or the last"
    )
    probe_every: Annotated[int, Field(ge=0)] = Field(
        5, description="epochs between two measurements of the features; 0: never"
    )
    on_collapse: Literal["warn", "stop"] = Field(
        "warn", description="what happens when all features become the same"
    )


class ByolModel(Encoding):
    """encoder, projector, predictor, and the target's encoder and projector."""

    def __init__(self, encoder: nn.Module, width: int, hidden: int, projection: int) -> None:
        super().__init__(encoder)
        self.projector = _mlp(width, hidden, projection)
        self.predictor = _mlp(projection, hidden, projection)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """one, two: (B, 3, H, W) normalised views. Returns the symmetric loss of each pair, (B,),
        in [0, 8]: |p1 - z2|² + |p2 - z1|² of unit vectors.

        The views pass one after the other, so that BatchNorm sees one view at a time, as in the
        paper.
        """
        predicted = [self.predictor(self.projector(self.encoder(view))) for view in (one, two)]
        with torch.no_grad():
            wanted = [self.target_projector(self.target_encoder(view)) for view in (two, one)]
        return distance(predicted[0], wanted[0]) + distance(predicted[1], wanted[1])

    def follow(self, momentum: float) -> None:
        """The target takes one step towards the online network: t ← m t + (1 - m) o."""
        with torch.no_grad():
            for target, online in self._pairs():
                mine: list[Tensor] = list(target.parameters())
                theirs: list[Tensor] = list(online.parameters())
                torch._foreach_lerp_(mine, theirs, 1.0 - momentum)

    def start_target(self) -> None:
        """The target becomes a copy of the online network, BatchNorm's statistics included."""
        for target, online in self._pairs():
            target.load_state_dict(online.state_dict())

    def _pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return (self.target_encoder, self.encoder), (self.target_projector, self.projector)


class Byol(Trainable):
    """Labels of the data set are not looked at."""

    Config = ByolConfig
    FIGURES = ("loss",)
    SELECT = ("val/loss", "min")
    PREDICTS = None
    NEEDS = None
    PROBED = MAPPED = True
    INPUTS = 2  # the views
    model: ByolModel

    def __init__(self, config: Any, data: DataInfo) -> None:
        self.config: ByolConfig = config
        encoder, self.width = build_encoder(config.backbone, config.small_input)
        self.model = ByolModel(encoder, self.width, config.hidden, config.projection)

    @classmethod
    def select(cls, config: Mapping[str, Any]) -> tuple[str, Literal["min", "max"]]:
        return cls.SELECT if config["select"] == "loss" else ("epoch", "max")

    def encoder_loaded(self) -> None:
        self.model.start_target()

    def after_step(self, progress: float) -> None:
        self.model.follow(momentum(self.config, progress))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        pairs: Tensor = model(*self._views(batch))
        return pairs.mean()

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Over views that are the same every epoch. The batch may be empty: ranks have no more than
        their share of what is left."""
        if not len(batch.indices):
            nothing = torch.zeros(2, dtype=torch.float64, device=batch.images.device)
            return {"loss": nothing[0], "count": nothing[1]}
        pairs = self.model(*self._views(replace(batch, epoch=0))).double()
        return {"loss": pairs.sum(), "count": torch.ones_like(pairs).sum()}

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / float(sums["count"])}

    def _views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        (first, one), (second, two) = VIEWS[self.config.views]
        draws = batch.uniform(first + second)
        least = self.config.min_scale
        return (
            one(batch.images, draws[:, :first], least),
            two(batch.images, draws[:, first:], least),
        )


def distance(predicted: Tensor, wanted: Tensor) -> Tensor:
    """(B, P), (B, P) → (B,): squared distance of the unit vectors, 2 - 2 cos."""
    cosine: Tensor = F.cosine_similarity(predicted.float(), wanted.float(), dim=1)
    return 2 - 2 * cosine


def momentum(config: ByolConfig, progress: float) -> float:
    """The target's momentum at `progress` in [0, 1] of the training (the paper's section 3.2)."""
    if config.momentum_schedule == "constant":
        return config.target_momentum
    return 1 - (1 - config.target_momentum) * (math.cos(math.pi * progress) + 1) / 2


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
