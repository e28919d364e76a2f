"""Why an attempt ended: from the exceptions of Ray Train to one outcome with a reason."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ray
import ray.train
import ray.train.torch

from orchestrator.execution.task import Task
from orchestrator.storage.run_log import fatal_signal
from orchestrator.storage.run_records import StaleWriter, Store
from trainables.engine.checkpoints import Unrecoverable

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


def explain(failures: Mapping[int, BaseException], task: Task, deaths: int) -> Outcome:
    """The cause among the ranks' failures: what a Run did itself, else who died, else the rest,
    since the death of one rank breaks the others' connections."""
    causes = {rank: root_cause(failure) for rank, failure in sorted(failures.items())}
    for cause in causes.values():
        if isinstance(cause, StaleWriter):
            return Outcome("superseded", str(cause))
        if isinstance(cause, Unrecoverable):
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
    run = Store(Path(task.store)).run(task.key)
    fatal = fatal_signal(run.log_file(task.attempt, rank))
    if fatal:
        return f"crashed: {fatal} (see its log)"
    said = one_line(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "low on memory" in said:
        return f"was killed: out of memory ({said})"
    gone = "node" in said and ("died" in said or "dead" in said) and "process" not in said
    if gone or isinstance(error, ray.exceptions.NodeDiedError):
        return f"was lost with its node ({said})"
    here = (run.progress() or {}).get("host") == platform.node()
    if here and kernel_kills() > deaths:
        return "was killed by the kernel: out of memory (SIGKILL)"
    return "was killed from outside (SIGKILL), or crashed without a word"


def kernel_kills() -> int:
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
