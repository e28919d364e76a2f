"""Bootstrap Your Own Latent: learns from images without labels (arXiv:2006.07733).

An online network learns to predict the output of a target network for another view of the same
image. The target is a moving average of the online network and has no gradient.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.models.encoders import build_encoder
from trainables.models.modules import Encoding
from trainables.schemas.byol import ByolConfig, ByolSchema
from trainables.trainable import Batch, Trainable
from trainables.transforms.views import draws_of, two_views


class ByolModel(Encoding):
    """Online network (encoder, projector, predictor) and target (encoder, projector).

    width: D of the encoder; hidden and projection: widths of the two-layer perceptrons.
    """

    def __init__(self, encoder: nn.Module, width: int, hidden: int, projection: int) -> None:
        super().__init__(encoder)
        self.projector = _mlp(width, hidden, projection)
        self.predictor = _mlp(projection, hidden, projection)
        self.target_encoder = copy.deepcopy(self.encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """Compute the symmetric loss of each pair: |p1 - z2|² + |p2 - z1|² of unit vectors.

        one, two: (B, 3, H, W) normalized views. Returns (B,) in [0, 8]. The views pass one after
        the other, so that BatchNorm sees one view at a time, as in the paper.
        """
        predicted = [self.predictor(self.projector(self.encoder(view))) for view in (one, two)]
        with torch.no_grad():
            targets = [self.target_projector(self.target_encoder(view)) for view in (two, one)]
        return distance(predicted[0], targets[0]) + distance(predicted[1], targets[1])

    def follow(self, momentum: float) -> None:
        """Move the target towards the online network: t ← m t + (1 - m) o, with m in [0, 1]."""
        with torch.no_grad():
            for target, online in self._pairs():
                targets: list[Tensor] = list(target.parameters())
                onlines: list[Tensor] = list(online.parameters())
                torch._foreach_lerp_(targets, onlines, 1.0 - momentum)

    def start_target(self) -> None:
        """Copy the online network to the target, with the statistics of BatchNorm."""
        for target, online in self._pairs():
            target.load_state_dict(online.state_dict())

    def _pairs(self) -> Iterable[tuple[nn.Module, nn.Module]]:
        return (self.target_encoder, self.encoder), (self.target_projector, self.projector)


class Byol(ByolSchema, Trainable):
    """Learns without labels: those of the data set are used for probes alone."""

    MAPPED = True
    INPUTS = 2  # the views
    model: ByolModel

    def __init__(self, config: Any, data: DataInfo) -> None:
        self.config: ByolConfig = config
        encoder, self.width = build_encoder(
            config.backbone, config.small_input, data.channels, config.seen(data.size)
        )
        self.model = ByolModel(encoder, self.width, config.hidden, config.projection)

    def encoder_loaded(self) -> None:
        self.model.start_target()

    def after_step(self, progress: float) -> None:
        self.model.follow(momentum(self.config, progress))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        pairs: Tensor = model(*self._views(batch))
        return pairs.mean()

    def evaluate(self, batch: Batch) -> dict[str, Tensor]:
        """Sum the loss over views that are the same every epoch. The batch may be empty: at the end
        of a split some ranks get no image."""
        if not len(batch.indices):
            zeros = torch.zeros(2, dtype=torch.float64, device=batch.images.device)
            return {"loss": zeros[0], "count": zeros[1]}
        pairs = self.model(*self._views(replace(batch, epoch=0))).double()
        return {"loss": pairs.sum(), "count": torch.ones_like(pairs).sum()}

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / float(sums["count"])}

    @torch.inference_mode()
    def projected(self, features: Tensor) -> Tensor:
        projection: Tensor = self.model.projector(features)
        return projection

    def _views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        config = self.config
        draws = batch.uniform(draws_of(config.views))
        return two_views(config.views, batch.images, draws, config.min_scale, config.view_size)


TRAINABLE = Byol


def distance(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the squared distance of unit vectors, 2 - 2 cos: (B, P), (B, P) → (B,) in [0, 4]."""
    cosine: Tensor = F.cosine_similarity(predicted.float(), target.float(), dim=1)
    return 2 - 2 * cosine


def momentum(config: ByolConfig, progress: float) -> float:
    """Return the momentum of the target at `progress` in [0, 1] of the training (section 3.2)."""
    if config.momentum_schedule == "constant":
        return config.target_momentum
    return 1 - (1 - config.target_momentum) * (math.cos(math.pi * progress) + 1) / 2


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )
