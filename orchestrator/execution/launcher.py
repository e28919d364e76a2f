"""Launch one attempt of a Run on Ray Train, and return how it ended."""

import faulthandler
import json
import logging
import os
import platform
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_get

from orchestrator.execution.batch_worker import produce
from orchestrator.execution.failures import (
    Ending,
    Outcome,
    kernel_kills,
    outcome_of,
    readable_errors,
)
from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.meters.epoch_usage import measured
from orchestrator.planning.placement import ResourceRequest
from orchestrator.storage.run_log import STALLED, place_in_words, recorded
from orchestrator.storage.run_records import PROGRESS, RunFolder, Store
from orchestrator.warm.quick_trainer import QuickTorchTrainer
from trainables.engine.checkpoints import Unrecoverable
from trainables.numerics.distributed import World
from trainables.numerics.tf32 import allow_tf32
from trainables.tasks.registry import PRODUCERS

log = logging.getLogger("orchestrator")
SECRETS = "ORCHESTRATOR_SECRETS"  # environment of a job: the name under which its secrets are kept
_SIGHT_SECONDS = 5.0  # after which a shared folder shows what another host has made
_LOOK_SECONDS = 1.0  # between two looks for progress
_START_FAILURES = 3  # of a minute each, then a worker group without room gives up


def launch(
    task: Task,
    request: ResourceRequest,
    storage: Path,
    callbacks: Sequence[ray.train.UserCallback] = (),
    title: str = "",
) -> Outcome:
    """Train one attempt of a Run on the cluster and wait for its end. storage: Ray Train's own
    bookkeeping; nothing is resumed from it. callbacks: hear of every epoch. title: what the
    dashboard calls its actors; default: label and seed."""
    name = f"{task.key}-{task.attempt}"
    shutil.rmtree(storage / name, ignore_errors=True)  # Ray Train would resume from it
    trainer = QuickTorchTrainer(
        train_on_ray,
        train_loop_config={"task": asdict(task), "stall_seconds": request.stall_seconds},
        title=title or f"{task.label}/{task.seed}",
        scaling_config=ray.train.ScalingConfig(
            num_workers=request.workers,
            use_gpu=request.gpus > 0,
            resources_per_worker=request.of_a_worker(),
            label_selector=request.selectors(),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            logging_config=ray.train.LoggingConfig(
                "WARNING"
            ),  # its own progress messages are of no use
            storage_path=str(storage),
            callbacks=list(callbacks),
            # the scheduler begins further attempts: a new number refuses this one's writers
            failure_config=ray.train.FailureConfig(
                max_failures=0,
                max_preemption_failures=0,
                controller_failure_limit=_START_FAILURES,
            ),
        ),
    )
    oom_kills = kernel_kills()
    try:
        trainer.fit()
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        return outcome_of(error, task, oom_kills)
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)
    return Outcome(Ending.FINISHED)


def train_on_ray(config: Mapping[str, Any]) -> None:
    """Train on one rank: what every worker process runs. config: the task as plain data, and
    seconds without progress after which the process ends (None: never)."""
    take_secrets()
    context, task = ray.train.get_context(), Task(**config["task"])
    torch.set_num_threads(_own_cpus())
    allow_tf32(str(task.config.get("precision", "auto")))
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    if not task.objects:
        check_home(task)
    run = Store(Path(task.store)).run(task.key)
    log_file, writer = run.log_file(task.attempt, world.rank), run.writer(task.attempt)

    def tell(reason: str) -> None:
        with log_file.open("a", encoding="utf-8") as file:
            faulthandler.dump_traceback(file)  # where each thread hangs
            file.write(f"{STALLED}{reason}\n")

    with (
        readable_errors(),
        recorded(log_file),
        ended_when_stalled(run, config["stall_seconds"], tell),
        measured(writer, world, lambda metrics: ray.train.report(dict(metrics))) as report,
    ):
        log.info(place_in_words(platform.node(), ray.get_runtime_context().get_node_id()))
        work = produce if task.trainable in PRODUCERS else train
        work(task, world, report)


def take_secrets() -> None:
    """Set the variables that a study names, in a process of its job. The head keeps their values in
    its memory as long as the driver lives. Raises Unrecoverable where it has them no more."""
    if not (name := os.environ.get(SECRETS, "")):
        return
    content = _internal_kv_get(f"gcs://{name}")
    if content is None:
        raise Unrecoverable("the variables of `environment.env` are gone: submit the study again")
    os.environ.update(json.loads(content))


def forget_secrets() -> None:
    """Have the head forget the variables that a study names."""
    if name := os.environ.get(SECRETS, ""):
        _internal_kv_del(f"gcs://{name}")


def check_home(task: Task) -> None:
    """Raise Unrecoverable where this host does not see the home in which the driver has begun the
    attempt: it would look for images and weights in an empty one."""
    folder = Store(Path(task.store)).run(task.key).path
    deadline = time.monotonic() + _SIGHT_SECONDS
    while not folder.is_dir():
        if time.monotonic() > deadline:
            raise Unrecoverable(
                f"host {platform.node()} does not see the home {Path(task.store).parent} of the "
                "driver: mount it there under the same path on every node, or choose one that is "
                "(--home, or `home` in clusters.yaml)"
            )
        time.sleep(0.2)


@contextmanager
def ended_when_stalled(
    run: RunFolder, seconds: float | None, tell: Callable[[str], object]
) -> Iterator[None]:
    """End this process when a Run makes no progress for too long.

    Progress is a change of the Run's progress file: no clock of another host is asked. tell: is
    given the reason before the process ends.
    """
    if seconds is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        seen, since = _progress_stamp(run), time.monotonic()
        while not over.wait(min(_LOOK_SECONDS, seconds)):
            stamp = _progress_stamp(run)
            if stamp != seen:
                seen, since = stamp, time.monotonic()
            elif time.monotonic() - since > seconds:
                tell(f"no progress for {seconds / 60:g} minutes")
                os._exit(1)

    threading.Thread(target=watch, name="stall watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _progress_stamp(run: RunFolder) -> tuple[int, int] | None:
    """Return what changes with every report of progress; None before the first."""
    try:
        status = (run.path / PROGRESS).stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _own_cpus() -> int:
    """Return the CPUs that this worker was given. Torch would use one thread otherwise, which Ray
    sets."""
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
