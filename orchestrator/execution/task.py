"""One Run as its worker processes get it, the facts they report, and the fault that ends it for
good."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.storage.files import NO_ROOM
from trainables.engine.checkpoints import Unrecoverable
from trainables.numerics.distributed import World

if TYPE_CHECKING:  # every worker imports this file, and the plan loads what no worker needs
    from orchestrator.planning.run import Run


@dataclass(frozen=True)
class Task:
    """One Run as plain data, the same on every rank."""

    key: str
    attempt: int  # 0 before one has begun
    label: str
    trainable: str
    config: Mapping[str, Any]
    seed: int
    vary: tuple[str, ...]  # what the seed draws: `init`, `order`
    table: str  # folder of the decoded images, or a producer's list of files
    store: str
    parent: str | None  # key
    parent_label: str | None
    tested: bool = True  # whether the best checkpoint is tested; a trial's is not
    parent_epoch: int | None = None  # of a parent that was not tested; None: its best epoch
    gpus: float = 1.0  # of each worker, where it has any
    objects: str = ""  # address of the store beyond this node's disk; empty: there is none
    until: int | None = None  # the epoch after which a trial of a population stops for the others

    def drawn(self, what: str) -> int:
        """Return the seed of its draws of `init` or `order`: its own, or 0."""
        return self.seed if what in self.vary else 0

    @classmethod
    def of(cls, run: "Run", table: Path, store: Path, attempt: int = 0, **options: Any) -> "Task":
        """Return the task of a planned Run. options: further fields, from `tested` on."""
        return cls(
            key=run.key,
            attempt=attempt,
            label=run.label,
            trainable=run.trainable,
            config=run.config,
            seed=run.seed,
            vary=run.vary,
            table=str(table),
            store=str(store),
            parent=run.parent,
            parent_label=run.parent_label,
            **options,
        )


@contextmanager
def full_disk_ends_the_run(task: Task) -> Iterator[None]:
    """Raise Unrecoverable, with what to do, where the disk takes no more in the block."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise Unrecoverable(
            f"nothing can be written under {task.store} ({error.strerror}): free some space and "
            "submit again; it goes on from where it stopped"
        ) from error


def worker_facts(world: World) -> dict[str, str]:
    """Return the device, workers, threads and version of torch that a Run has, for tags."""
    device = world.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "workers": str(world.size),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
