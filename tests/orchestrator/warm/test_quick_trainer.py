"""What Ray Train 2.60 puts around a fit, and what is left out of it here."""

import subprocess
import sys

import ray.train
from ray import cloudpickle
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from orchestrator.warm.quick_trainer import (
    QuickCleanerCallback,
    QuickTorchTrainer,
    named_controller,
)

READ = """
import pathlib, sys
from ray import cloudpickle
made = cloudpickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
for kind in (made, made.worker_group_cls._worker_cls):
    print(kind.__name__, "of", kind.__mro__[1].__name__)
"""


def callbacks(trainer: type[TorchTrainer]) -> list[type]:
    made = trainer(print, scaling_config=ray.train.ScalingConfig(num_workers=1))
    return [type(item) for item in made._create_default_callbacks()]


def test_a_fit_has_rays_callbacks_but_for_two() -> None:
    """Breaks where Ray makes the callbacks of a fit elsewhere than in 2.60."""
    theirs, ours = callbacks(TorchTrainer), callbacks(QuickTorchTrainer)
    assert DatasetsCallback in theirs and PlacementGroupCleanerCallback in theirs
    swapped = [QuickCleanerCallback if t is PlacementGroupCleanerCallback else t for t in theirs]
    assert ours == [item for item in swapped if item is not DatasetsCallback]


def test_actors_are_called_by_the_title_of_the_fit() -> None:
    controller = named_controller("digits/late[lr=0.1]/0")
    assert controller.__name__ == "digits/late[lr=0.1]/0 controller"
    assert issubclass(controller, TrainController)
    worker = controller.worker_group_cls._worker_cls
    assert worker.__name__ == "digits/late[lr=0.1]/0"
    assert issubclass(worker, RayTrainWorker)


def test_the_named_classes_reach_another_process(tmp_path) -> None:
    """By value: no other process can import them."""
    file = tmp_path / "controller.pickle"
    file.write_bytes(cloudpickle.dumps(named_controller("digits/late[lr=0.1]/0")))
    read = [sys.executable, "-c", READ, str(file)]
    said = subprocess.run(read, capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.splitlines() == [
        "digits/late[lr=0.1]/0 controller of TrainController",
        "digits/late[lr=0.1]/0 of RayTrainWorker",
    ]


def test_rays_own_start_looks_the_controller_up_by_its_name() -> None:
    """Breaks where Ray starts the controller otherwise than in 2.60: titles would be lost."""
    start = DataParallelTrainer._initialize_and_run_controller
    assert "TrainController" in start.__code__.co_names
    assert start.__closure__ is None
