"""One Run → one TorchTrainer.fit."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train
import ray.train.torch
import torch

from orchestrator.cluster import Share
from orchestrator.store import StaleWriter
from orchestrator.worker import RunFault, Task, World, train


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `killed`: its process or node died, so that it may be tried again."""

    state: Literal["finished", "failed", "killed"]
    reason: str = ""


def launch(task: Task, share: Share, storage: Path) -> Outcome:
    """Train one attempt of a Run on the cluster and wait for its end. storage: Ray Train's own
    bookkeeping; nothing is resumed from it."""
    trainer = ray.train.torch.TorchTrainer(
        train_on_ray,
        train_loop_config=asdict(task),
        scaling_config=ray.train.ScalingConfig(
            num_workers=share.workers,
            use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=f"{task.key}-{task.attempt}",
            storage_path=str(storage),
            # an attempt more is ours to give: it has a number of its own, which fences this one
            failure_config=ray.train.FailureConfig(max_failures=0, controller_failure_limit=3),
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        return _explain(error.worker_failures)
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        return Outcome("killed", _one_line(error))
    return Outcome("finished")


def train_on_ray(config: Mapping[str, Any]) -> None:
    """What every worker process runs."""
    context = ray.train.get_context()
    torch.set_num_threads(_own_cpus())
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    train(Task(**config), world, lambda metrics: ray.train.report(dict(metrics)))


def _own_cpus() -> int:
    """CPUs this worker was given; Ray's default would be one thread, whatever it was given."""
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _explain(failures: Mapping[int, BaseException]) -> Outcome:
    """The first cause among the ranks: a fault of the Run's own before a process's death."""
    for rank, failure in sorted(failures.items()):
        cause = _root(failure)
        if isinstance(cause, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError):
            continue
        if isinstance(cause, RunFault | StaleWriter):
            return Outcome("failed", str(cause))
        return Outcome("failed", f"{type(cause).__name__} on rank {rank}: {_one_line(cause)}")
    rank, failure = min(failures.items())
    return Outcome("killed", f"worker {rank} died: {_one_line(_root(failure))}")


def _root(error: BaseException) -> BaseException:
    """The user's exception under Ray's wrappers."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return _root(inner)
    return error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
