"""What the process of one trial does: the one worker loop where the trial has one worker, else a
TorchTrainer.fit of its own. Ray Tune hears of every epoch and may end it after any."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.execution.launcher import launch
from orchestrator.execution.resources import ResourceRequest, wait_for_room
from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.storage.checkpoints import Store
from orchestrator.storage.run_log import recorded
from orchestrator.storage.trial_log import history_of
from trainables.engine.checkpoints import Report, Unrecoverable
from trainables.engine.early_stopping import best_epoch, has_ended
from trainables.metrics import metric_of
from trainables.numerics.distributed import World
from trainables.tasks.registry import TRAINABLES

log = logging.getLogger("orchestrator")
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class TrialSpec:
    """One trial as its process gets it: plain data. A task's attempt has a number as soon as its
    process trains it."""

    trial: int
    task: Task
    request: ResourceRequest
    storage: str  # Ray Train's own bookkeeping
    job: str  # the submission's; what has failed in it for good is not tried again by it
    epochs: int | None  # how far it came when it ended before; None: it is to be trained
    stall_seconds: float
    upstream: Sequence[
        tuple[Task, str]
    ] = ()  # what it starts from, and by which metric each chooses


def to_config(spec: TrialSpec) -> dict[str, Any]:
    """As the configuration of a trial of Ray Tune."""
    return asdict(spec)


def run_trial(config: Mapping[str, Any]) -> None:
    """What every trial's process runs. Raises Unrecoverable when trying again would not help."""
    upstream = [(Task(**task), select) for task, select in config["upstream"]]
    parts = {
        "task": Task(**config["task"]),
        "request": ResourceRequest(**config["request"]),
        "upstream": upstream,
    }
    spec = TrialSpec(**{**config, **parts})
    task, store = spec.task, Store(Path(spec.task.store))
    ended = store.ended(task.key, spec.job)
    if ended is not None:
        raise Unrecoverable(ended[1])
    if task.until is not None:
        _to_boundary(spec, task, store)
    else:
        _to_its_end(spec, task, store)


def _to_its_end(spec: TrialSpec, task: Task, store: Store) -> None:
    with _owned(spec, task, store):
        history = history_of(store, task.key)[: spec.epochs]
        for figures in history:
            _report(figures)
        if spec.epochs is not None or _is_over(history, task):
            return
        epoch: int | None = None
        for each, select in spec.upstream:
            epoch = _chosen(spec, replace(each, parent_epoch=epoch), select, store)
        _train(spec, replace(task, parent_epoch=epoch), store, heard=True)


def _to_boundary(spec: TrialSpec, task: Task, store: Store) -> None:
    """One of a population: up to where everybody waits, and not a step farther. Ray Tune hears of
    it when the key is free again, since another process may go on with it."""
    with _owned(spec, task, store):
        history = history_of(store, task.key)
        if not _is_over(history, task) and len(history) < (task.until or 0):
            _train(spec, task, store, heard=False)
            history = history_of(store, task.key)
    _report({**history[-1], "ended": float(_is_over(history, task))})


def _is_over(history: Sequence[Mapping[str, float]], task: Task) -> bool:
    return has_ended(history, TRAINABLES[task.trainable].Config.model_validate(dict(task.config)))


def _chosen(spec: TrialSpec, task: Task, select: str, store: Store) -> int:
    """The epoch of what the trial starts from that is handed on. It is trained first, unless that
    has been done for another trial; nobody reports its epochs as the trial's."""
    ended = store.ended(task.key, spec.job)
    if ended is not None:
        raise Unrecoverable(f"{task.label}: {ended[1]}")
    with _owned(spec, task, store):
        history = history_of(store, task.key)
        if _is_over(history, task):
            epoch = best_epoch(history, select, metric_of(select).mode)
            if store.load(task.key, epoch) is not None:
                return epoch
            store.forget(task.key)
        try:
            _train(spec, task, store, heard=False)
        except Unrecoverable as fault:
            raise Unrecoverable(f"{task.label}: {fault}") from fault
        return best_epoch(history_of(store, task.key), select, metric_of(select).mode)


def _report(figures: Mapping[str, float]) -> None:
    ray.tune.report(dict(figures))


def _train(spec: TrialSpec, task: Task, store: Store, heard: bool) -> None:
    """heard: whether Ray Tune is told of every epoch."""
    task = replace(task, attempt=store.claim(task.key))
    with _watched(spec, task, store):
        try:
            if spec.request.workers == 1:
                _here(spec.request, task, store, _report if heard else _keep_still)
            else:
                _nested(spec, task, heard)
        except Unrecoverable as fault:
            store.end(task.key, task.attempt, "FAILED", str(fault), spec.job)
            raise
    if spec.request.gpus:
        torch.cuda.empty_cache()  # the next trial may get this process


def _keep_still(figures: Mapping[str, float]) -> None:
    """The store has them."""


def _here(request: ResourceRequest, task: Task, store: Store, report: Report) -> None:
    """In this process: no worker has to be started."""
    torch.set_num_threads(request.cpus)
    world = World(0, 1, torch.device("cuda" if request.gpus else "cpu"))
    with recorded(store.log(task.key, task.attempt, 0)):
        train(task, world, report)


def _nested(spec: TrialSpec, task: Task, heard: bool) -> None:
    """In workers of its own, whose first one is heard here."""
    if not wait_for_room(spec.request, task.label):
        raise RuntimeError("the cluster has lost a node that it needs")
    listeners = [TuneReportCallback()] if heard else []
    outcome = launch(task, spec.request, Path(spec.storage), listeners)
    if outcome.state == "failed":
        raise Unrecoverable(outcome.reason)
    if outcome.state != "finished":
        raise RuntimeError(f"{outcome.state}: {outcome.reason}")


@contextmanager
def _owned(spec: TrialSpec, task: Task, store: Store) -> Iterator[None]:
    """Be the key's only trainer; waits while somebody else is, but not for one who says nothing
    for too long: that one may wait for the room that this trial has."""
    since = time.time()
    while (owned := store.own(task.key, f"a trial of {task.label}")) is None:
        if _is_silent(spec, task, store, since):
            who = store.owner(task.key) or "another study"
            raise Unrecoverable(f"{who} has the same Run and makes no progress")
        time.sleep(_LOOK_SECONDS)
    with owned:
        yield


def _is_silent(spec: TrialSpec, task: Task, store: Store, since: float) -> bool:
    """Whether nothing was heard of a Run for too long."""
    said = float((store.progress(task.key) or {}).get("time", 0.0))
    return time.time() - max(since, said) > spec.stall_seconds


@contextmanager
def _watched(spec: TrialSpec, task: Task, store: Store) -> Iterator[None]:
    """End this process when what it trains says nothing for too long."""
    over, since = threading.Event(), time.time()

    def watch() -> None:
        while not over.wait(min(_LOOK_SECONDS, spec.stall_seconds)):
            if _is_silent(spec, task, store, since):
                why = f"no progress for {spec.stall_seconds / 60:g} minutes"
                store.end(task.key, task.attempt, "FAILED", why, spec.job)
                os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()
