"""Train one Run on one rank: the training loop of `trainables`, with the Run's folder in the store
as its checkpoints. Nothing here knows Ray or MLflow."""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from orchestrator.execution.task import Task, full_disk_ends_the_run, worker_facts
from orchestrator.mirror.node_copy import fetch_run, fetch_table, open_copy
from orchestrator.storage import tensors
from orchestrator.storage.checkpoints import TRAINING, WEIGHTS, Checkpoint, Write
from orchestrator.storage.files import write_json
from orchestrator.storage.run_records import StaleWriter, Store
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
from trainables.training_config import CheckpointEvery

log = logging.getLogger(__name__)
_MOST_OF_THE_TIME = 0.02  # that writing checkpoints may take, where a study does not say how often
_BYTES_PER_S = 100e6  # how fast one is written, before the first has shown it


def train(task: Task, world: World, report: Report) -> None:
    """Train a Run from its newest checkpoint to its end, and write its result to the store.

    report: called on every rank after every epoch, with its number and figures. Raises
    Unrecoverable when trying again would not help, StaleWriter when a newer attempt has taken over.
    """
    with full_disk_ends_the_run(task):
        training, stored = _build(task, world)
        with stored:
            train_epochs(training, report, task.until)
            if task.tested:
                training.finish()


def build_training(task: Task, world: World) -> Training:
    """Return the training of a Run on one rank, with the weights it starts from. Raises
    Unrecoverable."""
    return _build(task, world)[0]


def _build(task: Task, world: World) -> tuple[Training, "StoredCheckpoints"]:
    log.info("%s seed %d, attempt %d", task.label, task.seed, task.attempt)
    kind = TRAINABLES[task.trainable]
    fetch_table(task.objects, Path(task.table))
    config, table = kind.Config.model_validate(dict(task.config)), open_table(Path(task.table))
    model = describe_model(task.trainable, config, table)
    start = partial(_load_parent, task=task) if task.parent is not None else None
    kept = Path(task.table) / "features"  # it goes when the decoded images go
    options = Options(task.drawn("order"), world, start, task.gpus, kept, task.drawn("init"))
    stored = StoredCheckpoints(task, world, model, config.checkpoint_every)
    return Training(kind, config, table, stored, options), stored


def _load_parent(encoder: nn.Module, task: Task) -> WeightTransfer:
    """Copy the parent's encoder. Raises Unrecoverable where its checkpoint is gone."""
    key, epoch = str(task.parent), task.parent_epoch
    run = Store(Path(task.store)).run(key)
    fetch_run(task.objects, run)
    parent = run.best() if epoch is None else run.load(epoch)
    if parent is None:
        raise Unrecoverable(
            f"the checkpoint of parent {task.parent_label} ({key}) is gone or damaged: submit "
            "again, and the parent is trained again"
        )
    state = tensors.load(parent.weights)
    return load_encoder(encoder, state, f"{task.parent_label} epoch {parent.epoch}")


class StoredCheckpoints:
    """The checkpoints of one attempt of a Run, in the store.

    A thread writes them, one after the other, from a copy in the memory of this machine, while
    training goes on. An epoch after which none is written is trained again when the Run is killed.
    Of the best one the weights stay in memory until the next checkpoint. An error of the thread is
    raised by the next call. Use it as a context, which ends when all is written.

    A trial of a search may end after any epoch, by the figures that it reports. So each of its
    epochs is written before it is reported.
    """

    def __init__(
        self, task: Task, world: World, model: Mapping[str, Any], every: CheckpointEvery | None
    ) -> None:
        """model: what a predictor needs to build the model again, JSON; every: None as often as
        costs little."""
        self._world, self._model, self._is_trial = world, model, not task.tested
        self._run = Store(Path(task.store)).run(task.key)
        self._writer = self._run.writer(task.attempt)
        self._pace = _Pace(every)
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None
        self._reported: Progress | None = None
        self._stored = 0  # the newest epoch that is stored, from 1
        self._best: TrainingState | None = None  # a copy of the best epoch that is not stored yet
        self._newest: TrainingState | None = None  # not stored yet; what the model has now
        self._copy = open_copy(task.objects, self._run, task.attempt, world.rank)

    def __enter__(self) -> None:
        """Nothing is written yet."""
        if self._copy is not None:
            self._copy.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait until all is written. Raises its error where nothing else has failed. A training
        that cannot go on leaves the figures of all its epochs: they say why."""
        self._thread.shutdown()
        try:
            self._end(kind)
        finally:
            if self._copy is not None:
                self._copy.stop(whole=kind is None)

    def _end(self, kind: type[BaseException] | None) -> None:
        if kind is None:
            self._raise_errors()
        elif issubclass(kind, Unrecoverable) and self._reported is not None:
            with suppress(OSError, StaleWriter):  # what has ended the training is raised
                self._show(self._reported, len(self._reported.history))

    def newest(self) -> Checkpoint | None:
        if self._copy is not None:
            self._copy.fetch()
        newest = self._run.newest()
        if newest is None:
            self._writer.start_anew()
        else:
            self._stored = newest.epoch
            self._show_others()
        return newest

    def _show_others(self) -> None:
        """Return when ranks on other disks can read what this one has."""
        if self._copy is not None and self._world.size > 1:
            self._copy.send_now()

    def _see_others(self) -> None:
        """Get what rank 0 has shown."""
        if self._copy is not None and self._world.rank > 0:
            self._copy.fetch()

    def read(self, handle: Checkpoint) -> TrainingState:
        self._see_others()
        return TrainingState(
            epoch=handle.epoch,
            weights=tensors.load(handle.weights),
            optimizer=tensors.load(handle.training)["optimizer"],
            history=handle.info["history"],
            seconds=float(handle.info["seconds"]),
        )

    def weights(self, epoch: int) -> Mapping[str, Tensor]:
        self._see_others()
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
        self._raise_errors()
        if not self._is_trial and not self._pace.is_due(state):
            self._newest = state
            if best_epoch == state.epoch:
                self._best = _copied(state, with_optimizer=False)
            return
        self._wait()
        began = time.perf_counter()
        best, self._best, self._newest = self._best, None, None
        copied = _copied(state, with_optimizer=True)
        write = partial(self._write, copied, best_epoch, best, began)
        self._writing = self._thread.submit(write)
        if self._is_trial:
            self._wait()

    def settle(self) -> None:
        self._wait()
        state, best, self._newest, self._best = self._newest, self._best, None, None
        if state is not None:
            if best is not None and best.epoch != state.epoch:
                self._write_epoch(best, with_optimizer=False)
            self._write_epoch(state, with_optimizer=False)
            self._stored = state.epoch
        self._show_others()

    def keep(self, file: str, arrays: Arrays) -> None:
        write = partial(tensors.save_arrays, arrays)
        self._writer.put_optional(file, write)

    def report(self, progress: Progress) -> None:
        self._raise_errors()
        self._reported = progress
        self._show(progress, self._stored)  # what no death can take back

    def _show(self, progress: Progress, epochs: int) -> None:
        """Report how far the training is, with the figures of the first `epochs`."""
        shown = dict(vars(progress))  # once a second: `asdict` would copy the whole history
        shown["history"] = progress.history[:epochs]
        shown["facts"] = worker_facts(self._world) | shown["facts"]
        self._writer.report(shown)

    def finish(self, result: Result) -> None:
        written = asdict(result)
        written["facts"] = worker_facts(self._world) | written["facts"]
        self._writer.finish(written)
        self._writer.shrink(result.best_epoch, result.seconds)

    # --- what the thread does ------------------------------------------------------------------

    def _write(
        self, state: TrainingState, best_epoch: int, best: TrainingState | None, began: float
    ) -> None:
        """Store an epoch whole. best: the best epoch, where it is an earlier one that is not
        stored; began: when the copy was begun."""
        if best_epoch != state.epoch:  # it cannot be trained again from those that stay
            if best is not None:
                self._write_epoch(best, with_optimizer=False)
            self._writer.back_up(best_epoch)
        self._write_epoch(state, with_optimizer=True)
        self._writer.prune(best_epoch)
        self._stored = state.epoch
        self._pace.has_taken(time.perf_counter() - began)

    def _write_epoch(self, state: TrainingState, with_optimizer: bool) -> None:
        files: dict[str, Write] = {
            WEIGHTS: partial(tensors.save, state.weights),
            MODEL: partial(write_json, value=self._model),
        }
        if with_optimizer:
            files[TRAINING] = partial(tensors.save, {"optimizer": state.optimizer})
        info = {"history": state.history, "seconds": state.seconds}
        self._writer.save(state.epoch, files, info)

    def _wait(self) -> None:
        """Wait until what is being written is stored. Raises its error."""
        if self._writing is not None:
            self._writing.result()

    def _raise_errors(self) -> None:
        if self._copy is not None:
            self._copy.check()
        if self._writing is not None and self._writing.done():
            self._writing.result()


class _Pace:
    """Decides after which epochs a checkpoint is written."""

    def __init__(self, every: CheckpointEvery | None) -> None:
        self._every, self._last = every, time.perf_counter()  # when the last one was begun
        self._cost: float | None = None  # seconds that the last one took; None before the first

    def is_due(self, state: TrainingState) -> bool:
        """Tell whether one is written after an epoch."""
        since = time.perf_counter() - self._last
        if self._every is not None and self._every.epochs is not None:
            due = state.epoch % self._every.epochs == 0
        elif self._every is not None and self._every.minutes is not None:
            due = since >= 60 * self._every.minutes
        else:
            cost = _bytes(state) / _BYTES_PER_S if self._cost is None else self._cost
            due = since * _MOST_OF_THE_TIME >= cost
        if due:
            self._last += since
        return due

    def has_taken(self, seconds: float) -> None:
        """Remember how long writing the last one took."""
        self._cost = seconds


def _copied(state: TrainingState, with_optimizer: bool) -> TrainingState:
    """Copy a state to the memory of this machine: training goes on and changes it."""
    optimizer = _on_host(state.optimizer) if with_optimizer else {}
    return replace(
        state,
        weights=_on_host(state.weights),
        optimizer=optimizer,
        history=list(state.history),
    )


def _on_host(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(item) for item in value)
    return value


def _bytes(value: Any) -> int:
    """Return the bytes of all tensors of a state."""
    if isinstance(value, TrainingState):
        return _bytes(value.weights) + _bytes(value.optimizer)
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    items = value.values() if isinstance(value, Mapping) else value
    return sum(map(_bytes, items)) if isinstance(value, Mapping | list | tuple) else 0
