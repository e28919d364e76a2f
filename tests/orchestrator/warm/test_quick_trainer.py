"""What Ray Train 2.60 puts around a fit, and what is left out of it here."""

import ray.train
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)

from orchestrator.warm.quick_trainer import QuickCleanerCallback, QuickTorchTrainer


def callbacks(trainer: type[TorchTrainer]) -> list[type]:
    made = trainer(print, scaling_config=ray.train.ScalingConfig(num_workers=1))
    return [type(item) for item in made._create_default_callbacks()]


def test_a_fit_has_rays_callbacks_but_for_two() -> None:
    """Breaks where Ray makes the callbacks of a fit elsewhere than in 2.60."""
    theirs, ours = callbacks(TorchTrainer), callbacks(QuickTorchTrainer)
    assert DatasetsCallback in theirs and PlacementGroupCleanerCallback in theirs
    swapped = [QuickCleanerCallback if t is PlacementGroupCleanerCallback else t for t in theirs]
    assert ours == [item for item in swapped if item is not DatasetsCallback]
