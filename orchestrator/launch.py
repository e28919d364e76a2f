"""One Run → one TorchTrainer.fit, and what became of it."""

import logging
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import ray.train
import ray.train.torch
import torch
from ray._private.state import available_resources_per_node
from ray.util import remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.state import list_actors, list_jobs, list_placement_groups
from ray.util.state.exception import RayStateApiException

from orchestrator.cluster import Node, Share, at_once
from orchestrator.produce import produce
from orchestrator.runlog import fatal_signal, recorded
from orchestrator.store import StaleWriter, Store
from orchestrator.task import RunFault, Task
from orchestrator.worker import train
from trainables.catalog import PRODUCERS
from trainables.world import World

log = logging.getLogger("orchestrator")
_MOST = 10_000  # actors and groups that are looked at
_ORPHAN_SECONDS = 75.0  # a living controller gives a start up after 60
_LOOK_SECONDS = 1.0
_ORPHANS_SECONDS = 15.0  # between two looks at all actors of the cluster
_NODE_SECONDS = 600.0  # how long a node that is needed may be away
_START_FAILURES = 3  # of a minute each, until a worker group that finds no room gives up

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
_LOST_CONTACT = ("gloo", "DistBackendError", "NCCL")  # what torch.distributed says of a dead peer


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `killed`: its process or node died, so that it may be tried again;
    `unplaced`: the cluster had no room for it; `superseded`: a newer attempt has taken over."""

    state: Literal["finished", "failed", "killed", "unplaced", "superseded"]
    reason: str = ""


def launch(
    task: Task, share: Share, storage: Path, callbacks: Sequence[ray.train.UserCallback] = ()
) -> Outcome:
    """Train one attempt of a Run on the cluster and wait for its end. storage: Ray Train's own
    bookkeeping; nothing is resumed from it. callbacks: hear of every epoch."""
    name = f"{task.key}-{task.attempt}"
    shutil.rmtree(storage / name, ignore_errors=True)  # Ray Train would go on from it, silently
    trainer = ray.train.torch.TorchTrainer(
        train_on_ray,
        train_loop_config=asdict(task),
        scaling_config=ray.train.ScalingConfig(
            num_workers=share.workers,
            use_gpu=share.gpus > 0,
            resources_per_worker={"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            logging_config=ray.train.LoggingConfig("WARNING"),  # a Run's log is the Run's
            storage_path=str(storage),
            callbacks=list(callbacks),
            # an attempt more is ours to give: it has a number of its own, which fences this one
            failure_config=ray.train.FailureConfig(
                max_failures=0,
                max_preemption_failures=0,
                controller_failure_limit=_START_FAILURES,
            ),
        ),
    )
    deaths = _kernel_kills()
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        return _explain(error.worker_failures, task, deaths)
    except ray.train.ControllerError as error:
        cause = error.controller_failure
        if type(cause).__name__ == "WorkerGroupStartupTimeoutError":
            return Outcome("unplaced", "the cluster had no room for it")
        return Outcome("killed", one_line(cause))
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        return Outcome("killed", f"its controller died: {one_line(error)}")
    finally:
        shutil.rmtree(storage / name, ignore_errors=True)
    return Outcome("finished")


def train_on_ray(config: Mapping[str, Any]) -> None:
    """What every worker process runs."""
    context, task = ray.train.get_context(), Task(**config)
    torch.set_num_threads(_own_cpus())
    world = World(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    with recorded(Store(Path(task.store)).log(task.key, task.attempt, world.rank)):
        work = produce if task.trainable in PRODUCERS else train
        work(task, world, lambda metrics: ray.train.report(dict(metrics)))


def cluster_nodes() -> list[Node]:
    """The living nodes of the cluster and all they have."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(item.get("CPU", 0.0), item.get("GPU", 0.0)) for item in found]


def has_room(share: Share) -> bool:
    """Whether a Run could be placed now."""
    free = available_resources_per_node().values()
    return at_once(share, [Node(item.get("CPU", 0.0), item.get("GPU", 0.0)) for item in free]) > 0


def wait_for_room(share: Share, name: str) -> bool:
    """Other studies may have what this one counted on. Returns whether there is room; there is none
    when the cluster has become too small and stays so. name: of what waits."""
    fitted, looked, orphans = time.monotonic(), 0.0, Orphans()
    while not has_room(share):
        if not looked:
            log.info("%s: waits for room on the cluster", name)
        if time.monotonic() - looked > _ORPHANS_SECONDS:
            looked = time.monotonic()
            orphans.give_back()
        if at_once(share, cluster_nodes()):
            fitted = time.monotonic()
        elif time.monotonic() - fitted > _NODE_SECONDS:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


class Orphans:
    """Placement groups whose controller died before any actor used them. Ray does not give them
    back, and those of a job that has ended neither, if it ended while they waited for room."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # id → when it was first seen without an actor

    def give_back(self) -> None:
        """Remove those that nobody has used for longer than a start may take."""
        now, job = time.monotonic(), ray.get_runtime_context().get_job_id()
        try:
            actors = list_actors(detail=True, limit=_MOST)
            groups = list_placement_groups(detail=True, limit=_MOST)
            jobs = list_jobs(detail=True, limit=_MOST)
        except RayStateApiException as error:
            log.warning("cannot look for orphaned placement groups: %s", one_line(error))
            return
        ended = {each.job_id for each in jobs if each.status in ("SUCCEEDED", "FAILED", "STOPPED")}
        used = {item.placement_group_id for item in actors if item.state != "DEAD"}
        for group in groups:
            name = group.placement_group_id
            lost = group.creator_job_id in ended and not group.is_detached
            ours = group.creator_job_id == job
            if not (lost or ours) or group.state == "REMOVED" or name in used:
                self._since.pop(name, None)
                continue
            since = now - self._since.setdefault(name, now)
            if lost or since > _ORPHAN_SECONDS:
                log.warning("placement group %s is orphaned, it is given back", name)
                remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def _own_cpus() -> int:
    """CPUs this worker was given; Ray's default would be one thread, whatever it was given."""
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _explain(failures: Mapping[int, BaseException], task: Task, deaths: int) -> Outcome:
    """The cause among the ranks' failures: what a Run did itself, else who died, else the rest,
    since the death of one rank breaks the others' connections."""
    causes = {rank: root_cause(failure) for rank, failure in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, StaleWriter):
            return Outcome("superseded", str(cause))
        if isinstance(cause, RunFault):
            return Outcome("failed", str(cause))
    for rank, cause in causes.items():
        if isinstance(cause, _DEATHS) or type(cause).__name__ == "WorkerHealthCheckTimeoutError":
            return Outcome("killed", f"worker {rank} {_death(cause, task, rank, deaths)}")
    rank, cause = next(iter(causes.items()))
    said = f"{type(cause).__name__} on rank {rank}: {one_line(cause)}"
    if any(word in said for word in _LOST_CONTACT):
        return Outcome("killed", f"the workers lost contact: {said}")
    return Outcome("failed", said)


def _death(error: BaseException, task: Task, rank: int, deaths: int) -> str:
    """Why a process died, as far as anybody knows."""
    store = Store(Path(task.store))
    fatal = fatal_signal(store.log(task.key, task.attempt, rank))
    if fatal:
        return f"crashed: {fatal} (see its log)"
    said = one_line(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in said:
        return f"was killed: out of memory ({said})"
    gone = "node" in said and ("died" in said or "dead" in said) and "process" not in said
    if gone or isinstance(error, ray.exceptions.NodeDiedError):
        return f"was lost with its node ({said})"
    here = (store.progress(task.key) or {}).get("host") == platform.node()
    if here and _kernel_kills() > deaths:
        return "was killed by the kernel: out of memory (SIGKILL)"
    return "was killed from outside (SIGKILL), or crashed without a word"


def _kernel_kills() -> int:
    """How many processes this machine's kernel has killed for want of memory; 0 where it does not
    say (Linux does, proc_vmstat(5))."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def root_cause(error: BaseException) -> BaseException:
    """The user's exception under Ray's wrappers."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return root_cause(inner)
    return error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
