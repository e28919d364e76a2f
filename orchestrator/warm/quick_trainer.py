"""Ray's TorchTrainer without what costs a Run time and gives it nothing."""

from typing import Any

import ray.train.torch
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)


class QuickTorchTrainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """Trains like a TorchTrainer, for functions that read their own data.

    It starts no process that hands out Ray's data sets, and at the end of a fit it does not wait
    for the clean-up actor, which looks once a second whether it should end.
    """

    def _create_default_callbacks(self) -> list[Any]:
        kept = []
        for item in super()._create_default_callbacks():
            if isinstance(item, PlacementGroupCleanerCallback):
                kept.append(QuickCleanerCallback())
            elif not isinstance(item, DatasetsCallback):
                kept.append(item)
        return kept


class QuickCleanerCallback(PlacementGroupCleanerCallback):  # type: ignore[misc]
    """Asks the clean-up actor to end, and does not wait until it has. Nothing is left by then that
    it could clean up; it ends within a second, as it would if the controller had died."""

    _cleaner: Any

    def _stop_cleaner(self) -> None:
        if self._cleaner is not None:
            self._cleaner.stop.remote()
            self._cleaner = None
