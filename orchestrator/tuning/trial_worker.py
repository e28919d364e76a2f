"""Run one trial in its process: train here with one worker, or start a TorchTrainer with several.

Ray Tune gets the figures of every epoch and may stop the trial after any of them.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.execution.failures import Ending, readable_errors
from orchestrator.execution.launcher import ended_when_stalled, launch, take_secrets
from orchestrator.execution.resources import wait_for_room
from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.meters.epoch_usage import measured
from orchestrator.planning.placement import ResourceRequest
from orchestrator.storage.run_log import recorded
from orchestrator.storage.run_records import Store
from trainables.engine.checkpoints import Report, Unrecoverable
from trainables.engine.early_stopping import AllCollapsed, chosen_epoch, has_ended
from trainables.metrics import metric_of
from trainables.numerics.distributed import World
from trainables.numerics.tf32 import allow_tf32
from trainables.tasks.registry import TRAINABLES

log = logging.getLogger("orchestrator")
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class TrialSpec:
    """One trial as its process gets it: plain data. The attempt number of a task is 0 until the
    process begins to train it."""

    trial: int  # its index
    task: Task
    request: ResourceRequest
    storage: str  # folder for the files of Ray Train
    job: str  # id of the submission's Ray job, which never tries a Run again that failed in it
    epochs: int | None  # how far the trial came when it ended earlier; None: it must be trained
    stall_seconds: float  # without progress for so long, it has failed
    upstream: Sequence[tuple[Task, str]] = ()  # what it trains first; the metric that chooses there


def to_config(spec: TrialSpec) -> dict[str, Any]:
    """Return a trial as Ray Tune's configuration of it."""
    return asdict(spec)


def run_trial(config: Mapping[str, Any]) -> None:
    """Run the trial that `to_config` wrote. Raises Unrecoverable when another try cannot help."""
    take_secrets()
    parts = {
        "task": Task(**config["task"]),
        "request": ResourceRequest(**config["request"]),
        "upstream": [(Task(**task), select) for task, select in config["upstream"]],
    }
    spec = TrialSpec(**{**config, **parts})
    task, store = spec.task, Store(Path(spec.task.store))
    ended = store.run(task.key).ended(spec.job)
    if ended is not None:
        raise Unrecoverable(ended[1])
    with readable_errors():
        if task.until is not None:
            _train_to_boundary(spec, task, store)
        else:
            _train_to_end(spec, task, store)


def _train_to_end(spec: TrialSpec, task: Task, store: Store) -> None:
    with _owning(spec, task, store):
        history = store.run(task.key).history()[: spec.epochs]
        for figures in history:
            _report(figures)
        if spec.epochs is not None or _is_over(history, task):
            return
        epoch: int | None = None
        for upstream, select in spec.upstream:
            epoch = _train_upstream(spec, replace(upstream, parent_epoch=epoch), select, store)
        _train(spec, replace(task, parent_epoch=epoch), store, reported=True)


def _train_to_boundary(spec: TrialSpec, task: Task, store: Store) -> None:
    """Train a trial of PBT up to the boundary. Ray Tune gets the figures after the key is released,
    since another process may continue the trial."""
    with _owning(spec, task, store):
        history = store.run(task.key).history()
        if not _is_over(history, task) and len(history) < (task.until or 0):
            _train(spec, task, store, reported=False)
            history = store.run(task.key).history()
    _report({**history[-1], "ended": float(_is_over(history, task))})


def _is_over(history: Sequence[Mapping[str, float]], task: Task) -> bool:
    return has_ended(history, TRAINABLES[task.trainable].Config.model_validate(dict(task.config)))


def _train_upstream(spec: TrialSpec, task: Task, select: str, store: Store) -> int:
    """Return the epoch of an upstream Run whose weights the next one starts from. The Run is
    trained first unless another trial has done that. Its epochs are not reported to Ray Tune.

    select: the metric that chooses the epoch.
    """
    ended = store.run(task.key).ended(spec.job)
    if ended is not None:
        raise Unrecoverable(f"{task.label}: {ended[1]}")
    with _owning(spec, task, store):
        history = store.run(task.key).history()
        if _is_over(history, task):
            epoch = _chosen_epoch(history, select, task)
            if store.run(task.key).load(epoch) is not None:
                return epoch
            store.run(task.key).forget()
        try:
            _train(spec, task, store, reported=False)
        except Unrecoverable as error:
            raise Unrecoverable(f"{task.label}: {error}") from error
        return _chosen_epoch(store.run(task.key).history(), select, task)


def _chosen_epoch(history: Sequence[Mapping[str, float]], select: str, task: Task) -> int:
    try:
        return chosen_epoch(history, select, metric_of(select).mode)
    except AllCollapsed as error:
        raise Unrecoverable(f"{task.label}: {error}") from error


def _report(figures: Mapping[str, float]) -> None:
    ray.tune.report(dict(figures))


def _train(spec: TrialSpec, task: Task, store: Store, reported: bool) -> None:
    """Train a task. reported: whether Ray Tune gets the figures of every epoch."""
    task = replace(task, attempt=store.run(task.key).begin_attempt())

    def tell(reason: str) -> None:
        store.run(task.key).writer(task.attempt).end("FAILED", reason, spec.job)

    with ended_when_stalled(store.run(task.key), spec.stall_seconds, tell):
        try:
            if spec.request.workers == 1:
                _train_here(spec.request, task, store, _report if reported else _ignore)
            else:
                _train_in_workers(spec, task, reported)
        except Unrecoverable as error:
            store.run(task.key).writer(task.attempt).end("FAILED", str(error), spec.job)
            raise
    if spec.request.gpus:
        torch.cuda.empty_cache()  # the next trial may get this process


def _ignore(figures: Mapping[str, float]) -> None:
    """Report nothing: the store has the figures."""


def _train_here(request: ResourceRequest, task: Task, store: Store, report: Report) -> None:
    """Train in this process: no worker has to be started."""
    torch.set_num_threads(request.cpus)
    allow_tf32(str(task.config.get("precision", "auto")))
    world = World(0, 1, torch.device("cuda" if request.gpus else "cpu"))
    run = store.run(task.key)
    with (
        recorded(run.log_file(task.attempt, 0)),
        measured(run.writer(task.attempt), world, report) as measured_report,
    ):
        train(task, world, measured_report)


def _train_in_workers(spec: TrialSpec, task: Task, reported: bool) -> None:
    """Train in worker processes of Ray Train, whose first one reports."""
    if not wait_for_room(spec.request, task.label):
        raise RuntimeError(f"{task.label}: the cluster has lost a node that the trial needs")
    callbacks = [TuneReportCallback()] if reported else []
    outcome = launch(task, spec.request, Path(spec.storage), callbacks)
    if outcome.state is Ending.FAILED:
        raise Unrecoverable(outcome.reason)
    if outcome.state is not Ending.FINISHED:
        raise RuntimeError(f"{outcome.state}: {outcome.reason}")


@contextmanager
def _owning(spec: TrialSpec, task: Task, store: Store) -> Iterator[None]:
    """Own a key, so that no other process trains it.

    Waits while another process owns it. Raises Unrecoverable when that one makes no progress for
    too long: it may be waiting for the resources that this trial holds.
    """
    since = time.time()
    while (owned := store.run(task.key).acquire(f"a trial of {task.label}")) is None:
        if _is_stalled(spec, task, store, since):
            owner = store.run(task.key).owner() or "another study"
            raise Unrecoverable(f"{owner} has the same Run and makes no progress")
        time.sleep(_POLL_SECONDS)
    with owned:
        yield


def _is_stalled(spec: TrialSpec, task: Task, store: Store, since: float) -> bool:
    """Return whether a Run has made no progress for too long. since: Unix time in seconds, before
    which nothing counts."""
    progress = store.run(task.key).progress() or {}
    return time.time() - max(since, float(progress.get("time", 0.0))) > spec.stall_seconds
