"""Train one Run on one rank: the training loop of `trainables`, with the Run's folder in the store
as its checkpoints. Nothing here knows Ray or MLflow."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from orchestrator.execution.task import Task, full_disk_ends_the_run, worker_facts
from orchestrator.storage import tensors
from orchestrator.storage.checkpoints import TRAINING, WEIGHTS, Checkpoint
from orchestrator.storage.files import write_json
from orchestrator.storage.run_records import Store
from trainables.engine.checkpoints import (
    Arrays,
    Progress,
    Report,
    Result,
    TrainingState,
    Unrecoverable,
)
from trainables.engine.loop import Options, Training
from trainables.engine.loop import train as train_epochs
from trainables.loading.image_table import open_table
from trainables.models.weights import WeightTransfer, load_encoder
from trainables.numerics.distributed import World
from trainables.tasks.predictor import MODEL, describe_model
from trainables.tasks.registry import TRAINABLES

log = logging.getLogger(__name__)


def train(task: Task, world: World, report: Report) -> None:
    """Train a Run from its newest checkpoint to its end, and write its result to the store.

    report: called on every rank after every epoch, with its number and figures. Raises
    Unrecoverable when trying again would not help, StaleWriter when a newer attempt has taken over.
    """
    with full_disk_ends_the_run(task):
        training = build_training(task, world)
        train_epochs(training, report, task.until)
        if task.tested:
            training.finish()


def build_training(task: Task, world: World) -> Training:
    """Return the training of a Run on one rank, with the weights it starts from. Raises
    Unrecoverable."""
    log.info("%s seed %d, attempt %d", task.label, task.seed, task.attempt)
    kind = TRAINABLES[task.trainable]
    config, table = kind.Config.model_validate(dict(task.config)), open_table(Path(task.table))
    model = describe_model(task.trainable, config, table)
    start = partial(_load_parent, task=task) if task.parent is not None else None
    options = Options(task.seed, world, start, task.gpus)
    return Training(kind, config, table, StoredCheckpoints(task, world, model), options)


def _load_parent(encoder: nn.Module, task: Task) -> WeightTransfer:
    """Copy the parent's encoder. Raises Unrecoverable where its checkpoint is gone."""
    key, epoch = str(task.parent), task.parent_epoch
    run = Store(Path(task.store)).run(key)
    parent = run.best() if epoch is None else run.load(epoch)
    if parent is None:
        raise Unrecoverable(
            f"the checkpoint of parent {task.parent_label} ({key}) is gone or damaged: submit "
            "again, and the parent is trained again"
        )
    state = tensors.load(parent.weights)
    return load_encoder(encoder, state, f"{task.parent_label} epoch {parent.epoch}")


class StoredCheckpoints:
    """The checkpoints of one attempt of a Run, in the store."""

    def __init__(self, task: Task, world: World, model: Mapping[str, Any]) -> None:
        """model: what a predictor needs to build the model again; JSON."""
        self._world, self._model = world, model
        self._run = Store(Path(task.store)).run(task.key)
        self._writer = self._run.writer(task.attempt)

    def newest(self) -> Checkpoint | None:
        return self._run.newest()

    def read(self, handle: Checkpoint) -> TrainingState:
        return TrainingState(
            epoch=handle.epoch,
            weights=tensors.load(handle.weights),
            optimizer=tensors.load(handle.training)["optimizer"],
            history=handle.info["history"],
            seconds=float(handle.info["seconds"]),
        )

    def weights(self, epoch: int) -> Mapping[str, Tensor]:
        checkpoint = self._run.load(epoch)
        if checkpoint is None:
            if self._world.rank == 0:
                self._run.forget()
            raise Unrecoverable(
                f"the best checkpoint (epoch {epoch}) is damaged: submit again, and the Run is "
                "trained anew"
            )
        return tensors.load(checkpoint.weights)

    def save(self, state: TrainingState, best_epoch: int) -> None:
        if best_epoch != state.epoch:  # it cannot be trained again from those that stay
            self._writer.back_up(best_epoch)
        training = {"optimizer": state.optimizer}
        self._writer.save(
            state.epoch,
            {
                WEIGHTS: partial(tensors.save, state.weights),
                TRAINING: partial(tensors.save, training),
                MODEL: partial(write_json, value=self._model),
            },
            {"history": state.history, "seconds": state.seconds},
        )
        self._writer.prune(best_epoch)

    def keep(self, file: str, arrays: Arrays) -> None:
        write = partial(tensors.save_arrays, arrays)
        self._writer.put_optional(file, write)

    def report(self, progress: Progress) -> None:
        shown = dict(vars(progress))  # once a second: `asdict` would copy the whole history
        shown["facts"] = worker_facts(self._world) | shown["facts"]
        self._writer.report(shown)

    def finish(self, result: Result) -> None:
        written = asdict(result)
        written["facts"] = worker_facts(self._world) | written["facts"]
        self._writer.back_up(result.best_epoch)
        self._writer.finish(written)
        self._writer.prune(result.best_epoch, keep=1)
