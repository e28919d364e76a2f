"""Ray's TorchTrainer without what costs a Run time and gives it nothing."""

import types
from typing import Any

import ray.train.torch
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import (
    PlacementGroupCleanerCallback,
)
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class QuickTorchTrainer(ray.train.torch.TorchTrainer):  # type: ignore[misc]
    """Trains like a TorchTrainer, for functions that read their own data.

    It starts no process that hands out Ray's data sets, and at the end of a fit it does not wait
    for the clean-up actor, which looks once a second whether it should end. Its actors bear its
    title as the name of their class, which is what the dashboard lists.
    """

    def __init__(self, *args: Any, title: str = "", **options: Any) -> None:
        """title: such as `study/label/seed`; empty: Ray's own names."""
        super().__init__(*args, **options)
        self._title = title

    def _initialize_and_run_controller(self, **options: Any) -> Any:
        start = DataParallelTrainer._initialize_and_run_controller
        if not self._title:
            return start(self, **options)
        # the same function, which finds a controller of our name: others of this process, in other
        # threads, must not find it too
        known = {**start.__globals__, TrainController.__name__: named_controller(self._title)}
        named = types.FunctionType(start.__code__, known, start.__name__, start.__defaults__)
        return named(self, **options)

    def _create_default_callbacks(self) -> list[Any]:
        kept = []
        for item in super()._create_default_callbacks():
            if isinstance(item, PlacementGroupCleanerCallback):
                kept.append(QuickCleanerCallback())
            elif not isinstance(item, DatasetsCallback):
                kept.append(item)
        return kept


def named_controller(title: str) -> type:
    """Return Ray's controller, whose class and whose workers' class are called by a title."""
    worker = _called(title, RayTrainWorker)
    group = _called(WorkerGroup.__name__, WorkerGroup, _worker_cls=worker)
    return _called(f"{title} controller", TrainController, worker_group_cls=group)


def _called(name: str, kind: type, **attributes: Any) -> type:
    # `__module__` is one in which no class has that name: it is sent as it is, not by its name
    return type(name, (kind,), {"__module__": __name__, "__doc__": kind.__doc__, **attributes})


class QuickCleanerCallback(PlacementGroupCleanerCallback):  # type: ignore[misc]
    """Asks the clean-up actor to end, and does not wait until it has. Nothing is left by then that
    it could clean up; it ends within a second, as it would if the controller had died."""

    _cleaner: Any

    def _stop_cleaner(self) -> None:
        if self._cleaner is not None:
            self._cleaner.stop.remote()
            self._cleaner = None
