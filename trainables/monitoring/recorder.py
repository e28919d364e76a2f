"""What a Run lets be seen of itself while it learns: probes of its features, features for t-SNE
maps, masks of watched images, what its model is made of. Arrays are kept beside its checkpoints;
somebody else draws them."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from trainables.dataset import DataInfo
from trainables.loading.image_table import ImageTable
from trainables.monitoring.architecture import architecture
from trainables.monitoring.probe import Autocast, probe, snapshot, validation_features
from trainables.monitoring.record_files import ARCHITECTURE, CONFUSION, feature_file, mask_file
from trainables.monitoring.watched_masks import watched_masks, watched_of
from trainables.numerics.distributed import World
from trainables.trainable import Trainable
from trainables.training_config import TrainableConfig

log = logging.getLogger(__name__)
Keep = Callable[[str, Mapping[str, np.ndarray[Any, Any]]], None]  # file, arrays


class Recorder:
    """The looks at one Run. Every rank takes part; `keep` is called on the first."""

    def __init__(
        self, trainable: Trainable, table: ImageTable, world: World, autocast: Autocast, keep: Keep
    ) -> None:
        self._at = trainable, table
        self._world, self._autocast, self._keep = world, autocast, keep

    def after_epoch(self, epoch: int, config: TrainableConfig) -> dict[str, float]:
        """In the epochs that are to be looked at; what is computed is computed once for all.
        Returns the figures of a probe, if it was time for one."""
        trainable, _ = self._at
        every = getattr(config, "probe_every", 0)
        kept = trainable.MAPPED and (epoch == 1 or epoch in config.tsne_epochs)
        probed = bool(every) and (epoch == 1 or epoch % every == 0)
        if trainable.WATCHED and epoch in (1, (config.epochs + 1) // 2):
            self._keep_masks(epoch)
        if not (kept or probed):
            return {}
        found = validation_features(*self._at, self._world, self._autocast)
        if kept:
            self._keep_features(epoch, found)
        return probe(*self._at, found, self._world, self._autocast) if probed else {}

    def at_end(self, epoch: int, config: TrainableConfig) -> None:
        """With the weights of the last epoch, whichever that came to be."""
        trainable, _ = self._at
        self._keep_architecture(config)
        if trainable.MAPPED:
            found = validation_features(*self._at, self._world, self._autocast)
            self._keep_features(epoch, found)
        if trainable.WATCHED:
            self._keep_masks(epoch)

    def at_test(self, sums: Mapping[str, Tensor]) -> None:
        """What the test has summed, if it is a confusion matrix."""
        if self._world.rank == 0 and "confusion" in sums:
            classes = np.array(self._at[1].classes, dtype=str)
            matrix = sums["confusion"].cpu().numpy()
            self._keep(CONFUSION, {"confusion": matrix, "classes": classes})

    def _keep_architecture(self, config: TrainableConfig) -> None:
        """What the model is made of; nothing of it is learnt, so that all can look on."""
        trainable, table = self._at
        if self._world.rank != 0:
            return
        try:
            one = architecture(type(trainable), config, DataInfo(table.classes, table.size))
        except Exception as error:  # of the tracer: a picture must not cost a trained model
            log.warning("no diagram of the model: %s: %s", type(error).__name__, error)
            return
        self._keep(ARCHITECTURE, {"json": np.array(json.dumps(asdict(one)))})

    def _keep_features(self, epoch: int, found: Tensor) -> None:
        if self._world.rank == 0:
            self._keep(feature_file(epoch), snapshot(self._at[1], found))

    def _keep_masks(self, epoch: int) -> None:
        """By the first rank alone: they are few."""
        trainable, table = self._at
        if self._world.rank == 0:
            rows = watched_of(table, trainable.watched)
            arrays = watched_masks(trainable, table, rows, self._world.device, self._autocast)
            self._keep(mask_file(epoch), arrays)
