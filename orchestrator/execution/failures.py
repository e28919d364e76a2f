"""Find out why an attempt ended: from the exceptions of Ray Train to one outcome with a reason.

Two tables decide, row by row: `CAUSES` what an attempt ended of, `DEATHS` what a worker process
died of. One test stands for every row.
"""

import copy
import platform
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import ray
import ray.train
import ray.train.torch

from orchestrator.execution.memory import memory_in_words, tells_of_memory
from orchestrator.execution.task import Task
from orchestrator.storage.run_log import fatal_signal, place_of, stall
from orchestrator.storage.run_records import RunFolder, StaleWriter, Store
from trainables.engine.checkpoints import Unrecoverable

_DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
)
_LOST_CONTACT = (
    "gloo",
    "DistBackendError",
    "NCCL",
)  # in what torch.distributed says of a dead peer
_NODE_LOOKS, _NODE_SECONDS = 4, 0.5  # a worker may be heard of before its node, which dies with it
_ANSWER_SECONDS = 3.0  # after which a node that does not take a connection is gone
_LESS_MEMORY = "take a smaller `batch_size`, or train fewer Runs at once (`cpus_per_worker`)"


class Ending(StrEnum):
    """Names how an attempt ended."""

    FINISHED = "finished"
    FAILED = "failed"  # by the Run's own fault: trying again would not help
    KILLED = "killed"  # its process or node died: it may be tried again
    UNPLACED = "unplaced"  # the cluster had no room for it
    SUPERSEDED = "superseded"  # a newer attempt has taken over


class Death(StrEnum):
    """Names what a process of an attempt died of. A study may limit the deaths of each kind."""

    CRASH = "crash"  # a signal, a kill from outside, or an unknown cause
    MEMORY = "memory"  # ended by the kernel or by Ray, since memory ran out
    NODE = "node"  # lost with its node
    NETWORK = "network"  # the workers lost contact, or a port was taken


@dataclass(frozen=True)
class Outcome:
    """Says how an attempt ended, and why in a line. death: of which kind, where it was KILLED."""

    state: Ending
    reason: str = ""
    death: Death = Death.CRASH


@dataclass(frozen=True)
class Failure:
    """The exception that a rank's process ended with."""

    cause: BaseException  # the user's, under Ray's wrappers
    rank: int
    task: Task
    oom_kills: int  # as `kernel_kills` counted before the attempt

    @property
    def message(self) -> str:
        return one_line(self.cause)

    @property
    def described(self) -> str:
        return f"{type(self.cause).__name__} on rank {self.rank}: {self.message}"

    @property
    def run(self) -> RunFolder:
        return Store(Path(self.task.store)).run(self.task.key)

    @property
    def place(self) -> tuple[str, str] | None:
        return place_of(self.run.log_file(self.task.attempt, self.rank))

    @property
    def stall(self) -> str | None:
        return stall(self.run.log_file(self.task.attempt, self.rank))

    @property
    def fatal_signal(self) -> str | None:
        return fatal_signal(self.run.log_file(self.task.attempt, self.rank))


def _is_death(failure: Failure) -> bool:
    timed_out = type(failure.cause).__name__ == "WorkerHealthCheckTimeoutError"
    return isinstance(failure.cause, _DEATHS) or timed_out


def _lost_contact(failure: Failure) -> bool:
    return any(word in failure.described for word in _LOST_CONTACT)


def _is_out_of_memory(failure: Failure) -> bool:
    by_ray = isinstance(failure.cause, ray.exceptions.OutOfMemoryError)
    return by_ray or tells_of_memory(failure.message)


def _tells_of_a_node(message: str) -> bool:
    died = "node" in message and ("died" in message or "dead" in message)
    return died and "process" not in message


def _lost_its_node(failure: Failure) -> bool:
    by_ray = isinstance(failure.cause, ray.exceptions.NodeDiedError)
    return by_ray or _tells_of_a_node(failure.message)


def _node_is_gone(failure: Failure) -> bool:
    """Return whether the node of a worker has died with it. Ray often tells of the worker first,
    and of the node half a minute later: so the node is asked."""
    if (place := failure.place) is None or not ray.is_initialized():
        return False
    return not answers(place[1])


def _host(failure: Failure) -> str:
    """Return the name of the host of a worker, where its log tells it."""
    return failure.place[0] if failure.place else "unknown"


def _kernel_has_killed(failure: Failure) -> bool:
    """Return whether the worker ran on this machine, whose kernel has killed a process
    meanwhile."""
    here = (failure.run.progress() or {}).get("host") == platform.node()
    return here and kernel_kills() > failure.oom_kills


Rule = tuple[Callable[[Failure], object], Callable[[Failure], Outcome]]

# What an attempt ended of. A group is tried on all ranks, in their order, before the next group: a
# rank's own fault counts before the death of another, and that before a rank that lost a dead one.
CAUSES: tuple[tuple[Rule, ...], ...] = (
    (
        (
            lambda f: isinstance(f.cause, StaleWriter),
            lambda f: Outcome(Ending.SUPERSEDED, str(f.cause)),
        ),
        (
            lambda f: isinstance(f.cause, Unrecoverable),
            lambda f: Outcome(Ending.FAILED, str(f.cause)),
        ),
    ),
    ((_is_death, lambda f: death(f)),),  # a function that stands below
    (
        (
            _lost_contact,
            lambda f: Outcome(
                Ending.KILLED, f"the workers lost contact: {f.described}", Death.NETWORK
            ),
        ),
        (lambda f: True, lambda f: Outcome(Ending.FAILED, f.described)),
    ),
)

# What a worker process died of.
DEATHS: tuple[tuple[Callable[[Failure], object], Death, Callable[[Failure], str]], ...] = (
    (
        lambda f: f.stall,
        Death.CRASH,
        lambda f: f"ended itself: {f.stall} (its log says where it hung)",
    ),
    (
        lambda f: f.fatal_signal,
        Death.CRASH,
        lambda f: f"crashed: {f.fatal_signal} (see its log)",
    ),
    (
        _is_out_of_memory,
        Death.MEMORY,
        lambda f: f"was killed: out of memory ({memory_in_words(str(f.cause))}); {_LESS_MEMORY}",
    ),
    (_lost_its_node, Death.NODE, lambda f: f"was lost with its node ({f.message})"),
    (
        _node_is_gone,
        Death.NODE,
        lambda f: f"was lost with its node (Ray on host {_host(f)} does not answer any more)",
    ),
    (
        _kernel_has_killed,
        Death.MEMORY,
        lambda f: f"was killed by the kernel: out of memory (SIGKILL); {_LESS_MEMORY}",
    ),
    (
        lambda f: True,
        Death.CRASH,
        lambda f: "was killed from outside (SIGKILL), or crashed without a word",
    ),
)


# What the text of a controller's error tells of its death.
CONTROLLER_DEATHS: tuple[tuple[Callable[[str], object], Death], ...] = (
    (_tells_of_a_node, Death.NODE),
    (lambda text: "EADDRINUSE" in text or "address already in use" in text, Death.NETWORK),
)


def outcome_of(error: BaseException, task: Task, oom_kills: int) -> Outcome:
    """Explain why `fit` raised. oom_kills: as `kernel_kills` counted before the attempt."""
    if isinstance(error, ray.train.WorkerGroupError):
        return explain(error.worker_failures, task, oom_kills)
    if isinstance(error, ray.train.ControllerError):
        cause = error.controller_failure
        if type(cause).__name__ == "WorkerGroupStartupTimeoutError":
            return Outcome(Ending.UNPLACED, "the cluster had no room for it")
        error = cause
    if isinstance(root_cause(error), ray.exceptions.OutOfMemoryError) or tells_of_memory(
        str(error)
    ):
        reason = f"its controller was killed: out of memory ({memory_in_words(str(error))})"
        return Outcome(Ending.KILLED, reason, Death.MEMORY)
    kind = next((kind for holds, kind in CONTROLLER_DEATHS if holds(str(error))), Death.CRASH)
    if isinstance(error, ray.exceptions.RayError):
        return Outcome(Ending.KILLED, f"its controller died: {one_line(error)}", kind)
    return Outcome(Ending.KILLED, one_line(error), kind)


def explain(failures: Mapping[int, BaseException], task: Task, oom_kills: int) -> Outcome:
    """Return the outcome of the first rule of `CAUSES` that holds. failures: by rank, at least
    one."""
    ranks = [
        Failure(root_cause(error), rank, task, oom_kills)
        for rank, error in sorted(failures.items())
    ]
    return next(
        outcome(failure)
        for group in CAUSES
        for failure in ranks
        for holds, outcome in group
        if holds(failure)
    )


def death(failure: Failure) -> Outcome:
    """Explain why a process died, as far as the log, Ray and the kernel tell."""
    kind, reason = next((kind, reason) for holds, kind, reason in DEATHS if holds(failure))
    return Outcome(Ending.KILLED, f"worker {failure.rank} {reason(failure)}", kind)


def answers(node_id: str) -> bool:
    """Return whether a node of this Ray cluster lives: Ray takes it for alive, and its raylet (the
    process of Ray that starts workers there) takes connections. node_id: hex. Looks four times
    within two seconds, since a node that dies ends its processes in any order."""
    for look in range(_NODE_LOOKS):
        time.sleep(_NODE_SECONDS if look else 0)
        node = next((node for node in ray.nodes() if node["NodeID"] == node_id), None)
        if node is None or not node["Alive"]:
            return False
        address = (node["NodeManagerAddress"], node["NodeManagerPort"])
        try:
            socket.create_connection(address, _ANSWER_SECONDS).close()
        except OSError:
            return False
    return True


def kernel_kills() -> int:
    """Return how many processes this machine's kernel has killed because memory ran out; 0 where it
    does not count them (Linux does, proc_vmstat(5))."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Raise a RuntimeError with the type and the message of an exception that cannot be made anew
    from its arguments, in place of it: other processes could not read it, and would name the
    failure to read it as the cause."""
    try:
        yield
    except Exception as error:
        try:
            copy.copy(error)
        except Exception:
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise


def root_cause(error: BaseException) -> BaseException:
    """Return the user's exception under Ray's wrappers."""
    for name in ("_base_exc", "health_check_failure", "cause"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return root_cause(inner)
    return error


def one_line(error: BaseException) -> str:
    """Return the message of an exception in one line of at most 500 characters."""
    return " ".join(str(error).split())[:500]
