"""Records what a Run has learned while it trains: probes of its features, features for t-SNE maps,
masks of watched images, views of training images, the blocks of its model, what it predicts of each
test image. Arrays are kept beside the checkpoints; the render process of the orchestrator draws
them."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from trainables.dataset import Indices
from trainables.loading.image_table import ImageTable
from trainables.metrics import COLLAPSES, initial
from trainables.monitoring.architecture import architecture
from trainables.monitoring.predictions import PredictionsDiffer, PredictionWatch, image_confusion
from trainables.monitoring.probe import features, probe, spread, tsne_input, validation_features
from trainables.monitoring.watched_images import training_views, watched_in_table, watched_masks
from trainables.numerics.distributed import World
from trainables.numerics.precision import Autocast
from trainables.record_files import (
    ARCHITECTURE,
    CONFUSION,
    PREDICTIONS,
    feature_file,
    mask_file,
    view_file,
)
from trainables.trainable import Trainable
from trainables.training_config import TrainableConfig

log = logging.getLogger(__name__)
_MOST_DRAWN = 200  # classes of a confusion matrix
Keep = Callable[[str, Mapping[str, np.ndarray[Any, Any]]], None]  # file, arrays


class Recorder:
    """Records one Run. Every rank takes part; `keep` is called on rank 0."""

    def __init__(
        self, trainable: Trainable, table: ImageTable, world: World, autocast: Autocast, keep: Keep
    ) -> None:
        self._subject = trainable, table
        self._world, self._autocast, self._keep = world, autocast, keep
        self._watch: PredictionWatch | None = None

    def features(self, rows: Indices) -> Tensor:
        """Compute the features of images by their numbers, (len(rows), D) on the CPU."""
        return features(*self._subject, rows, self._world, self._autocast)

    def before_epoch(self, epoch: int, config: TrainableConfig) -> dict[str, float]:
        """Run the probe on the weights before the first epoch, if any epoch has one. Returns its
        figures as `initial/...`; empty before other epochs."""
        if epoch != 1 or not self._interval(config):
            return {}
        seen = validation_features(*self._subject, self._world, self._autocast)
        found = probe(*self._subject, seen, self._world, self._autocast)
        return {initial(name): value for name, value in found.items() if name not in COLLAPSES}

    def after_epoch(self, epoch: int, config: TrainableConfig, last: bool) -> dict[str, float]:
        """Run the probe and record features and masks if due in this epoch, counted from 1. The
        spread of features that are probed is measured in every epoch.

        last: whether training ends with it. Features are computed once and shared. Returns the
        figures of the probe, empty for a trainable that is not probed.
        """
        trainable, _ = self._subject
        interval = self._interval(config)
        kept = trainable.MAPPED and (epoch == 1 or epoch in config.tsne_epochs)
        probed = bool(interval) and (epoch == 1 or last or epoch % interval == 0)
        if trainable.WATCHED and epoch in (1, (config.epochs + 1) // 2):
            self._keep_masks(epoch)
        if trainable.INPUTS == 2 and (epoch == 1 or epoch in config.tsne_epochs):
            self._keep_views(epoch)
        if kept or probed:
            seen = validation_features(*self._subject, self._world, self._autocast)
            if kept:
                self._keep_features(epoch, seen)
            if probed:
                return probe(*self._subject, seen, self._world, self._autocast)
        if not trainable.PROBED:
            return {}
        return spread(*self._subject, self._world, self._autocast)

    @staticmethod
    def _interval(config: TrainableConfig) -> int:
        """Return every how many epochs accuracies are probed; 0: never."""
        return int(getattr(config, "probe_every", 0))

    def at_end(self, epoch: int, config: TrainableConfig) -> None:
        """Record features, masks and architecture of the last epoch that was trained; then watch
        what the model predicts, until `at_test`."""
        trainable, table = self._subject
        self._keep_architecture(config)
        if trainable.MAPPED:
            seen = validation_features(*self._subject, self._world, self._autocast)
            self._keep_features(epoch, seen)
        if trainable.WATCHED:
            self._keep_masks(epoch)
        if trainable.PREDICTS is not None:
            self._watch = PredictionWatch(trainable, table, self._world)

    def at_test(self, sums: Mapping[str, Tensor]) -> None:
        """Record what was predicted of each test image, and the confusion matrix of the test, if
        the trainable sums one."""
        self._keep_predictions(sums)
        if self._world.rank == 0 and "confusion" in sums:
            classes = np.array(self._subject[1].classes, dtype=str)
            matrix = sums["confusion"].cpu().numpy()
            self._keep(CONFUSION, {"confusion": matrix, "classes": classes})

    def _keep_predictions(self, sums: Mapping[str, Tensor]) -> None:
        """Record what the model predicted, where its test figures follow from that."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        watch.stop()
        try:
            arrays = watch.arrays(sums)
        except PredictionsDiffer as error:
            log.warning("predictions of the test are not kept: %s", error)
            return
        if self._world.rank != 0:
            return
        self._keep(PREDICTIONS, arrays)
        if "predicted" in arrays and len(arrays["classes"]) <= _MOST_DRAWN:
            matrix = image_confusion(arrays)
            self._keep(CONFUSION, {"confusion": matrix, "classes": arrays["classes"]})

    def _keep_architecture(self, config: TrainableConfig) -> None:
        """Record the blocks of the model. They do not depend on the weights."""
        trainable, table = self._subject
        if self._world.rank != 0:
            return
        try:
            blocks = architecture(type(trainable), config, table.info)
        except Exception as error:  # a failed drawing must not fail the Run
            log.warning("the model cannot be drawn: %s: %s", type(error).__name__, error)
            return
        self._keep(ARCHITECTURE, {"json": np.array(json.dumps(asdict(blocks)))})

    def _keep_features(self, epoch: int, seen: Tensor) -> None:
        if self._world.rank == 0:
            self._keep(feature_file(epoch), tsne_input(self._subject[1], seen))

    def _keep_masks(self, epoch: int) -> None:
        """Record the masks of watched images, on rank 0 alone: they are few."""
        trainable, table = self._subject
        if self._world.rank == 0:
            rows = watched_in_table(table, trainable.watched)
            arrays = watched_masks(trainable, table, rows, self._world.device, self._autocast)
            self._keep(mask_file(epoch), arrays)

    def _keep_views(self, epoch: int) -> None:
        """Record what the model compares of a few training images, on rank 0 alone."""
        if self._world.rank == 0:
            arrays = training_views(*self._subject, epoch, self._world.device)
            self._keep(view_file(epoch), arrays)
