"""What the process of one trial does: the one worker loop where the trial has one worker, else a
TorchTrainer.fit of its own. Ray Tune hears of every epoch and may end it after any."""

import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
import torch
from ray.tune.integration.ray_train import TuneReportCallback

from orchestrator.cluster import Share
from orchestrator.history import has_ended
from orchestrator.launch import launch, wait_for_room
from orchestrator.runlog import recorded
from orchestrator.store import Store
from orchestrator.task import RunFault, Task
from orchestrator.trials import history_of
from orchestrator.worker import train
from trainables.catalog import TRAINABLES
from trainables.world import World

log = logging.getLogger("orchestrator")
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Attempt:
    """One trial as its process gets it: plain data."""

    trial: int
    task: Task  # its attempt's number is given by the process that trains it
    share: Share
    storage: str  # Ray Train's own bookkeeping
    job: str  # the submission's; what has failed in it for good is not tried again by it
    epochs: int | None  # how far it came when it ended before; None: it is to be trained
    stall_seconds: float


def plain(attempt: Attempt) -> dict[str, Any]:
    """As the configuration of a trial of Ray Tune."""
    return asdict(attempt)


def try_on_ray(config: Mapping[str, Any]) -> None:
    """What every trial's process runs. Raises RunFault when trying again would not help."""
    parts = {**config, "task": Task(**config["task"]), "share": Share(**config["share"])}
    attempt = Attempt(**parts)
    task, store = attempt.task, Store(Path(attempt.task.store))
    ended = store.ended(task.key, attempt.job)
    if ended is not None:
        raise RunFault(ended[1])
    with _owned(store, task):
        history = history_of(store, task.key)[: attempt.epochs]
        for figures in history:
            _report(figures)
        form = TRAINABLES[task.trainable].Config.model_validate(dict(task.config))
        if attempt.epochs is not None or has_ended(history, form):
            return
        _train(replace(attempt, task=replace(task, attempt=store.claim(task.key))), store)
    if attempt.share.gpus:
        torch.cuda.empty_cache()  # the next trial may get this process


def _report(figures: Mapping[str, float]) -> None:
    ray.tune.report(dict(figures))


def _train(attempt: Attempt, store: Store) -> None:
    task = attempt.task
    with _watched(attempt, store):
        try:
            if attempt.share.workers == 1:
                _here(attempt, store)
            else:
                _nested(attempt)
        except RunFault as fault:
            store.end(task.key, task.attempt, "FAILED", str(fault), attempt.job)
            raise


def _here(attempt: Attempt, store: Store) -> None:
    """In this process: no worker has to be started."""
    task, share = attempt.task, attempt.share
    torch.set_num_threads(share.cpus)
    world = World(0, 1, torch.device("cuda" if share.gpus else "cpu"))
    with recorded(store.log(task.key, task.attempt, 0)):
        train(task, world, _report)


def _nested(attempt: Attempt) -> None:
    """In workers of its own, whose first one is heard here."""
    if not wait_for_room(attempt.share, attempt.task.label):
        raise RuntimeError("the cluster has lost a node that it needs")
    outcome = launch(attempt.task, attempt.share, Path(attempt.storage), [TuneReportCallback()])
    if outcome.state == "failed":
        raise RunFault(outcome.reason)
    if outcome.state != "finished":
        raise RuntimeError(f"{outcome.state}: {outcome.reason}")


@contextmanager
def _owned(store: Store, task: Task) -> Iterator[None]:
    """Be the key's only trainer; waits while somebody else is."""
    while (owned := store.own(task.key, f"a trial of {task.label}")) is None:
        time.sleep(_LOOK_SECONDS)
    with owned:
        yield


@contextmanager
def _watched(attempt: Attempt, store: Store) -> Iterator[None]:
    """End this process when the trial says nothing for too long."""
    over = threading.Event()
    task, since = attempt.task, time.time()

    def watch() -> None:
        while not over.wait(min(_LOOK_SECONDS, attempt.stall_seconds)):
            said = (store.progress(task.key) or {}).get("time", 0.0)
            if time.time() - max(since, said) > attempt.stall_seconds:
                why = f"no progress for {attempt.stall_seconds / 60:g} minutes"
                store.end(task.key, task.attempt, "FAILED", why, attempt.job)
                os._exit(1)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()
