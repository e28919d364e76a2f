"""One Run as its worker processes get it, what they say of themselves, and the fault that ends it
for good."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.storage.files import NO_ROOM
from trainables.engine.checkpoints import Unrecoverable
from trainables.numerics.distributed import World


@dataclass(frozen=True)
class Task:
    """One Run as plain data, the same on every rank."""

    key: str
    attempt: int
    label: str
    trainable: str
    config: Mapping[str, Any]
    seed: int
    table: str  # folder of the decoded images, or a producer's list of files
    store: str
    parent: str | None  # key
    parent_label: str | None
    tested: bool = True  # whether the chosen checkpoint meets the test set; a trial's does not
    parent_epoch: int | None = None  # of a parent that was not tested; None: what it has chosen
    gpus: float = 1.0  # that each worker has, where it has any
    until: int | None = None  # the epoch after which it waits to be told how it goes on


@contextmanager
def full_disk_is_said(task: Task) -> Iterator[None]:
    """A disk that takes no more becomes a Unrecoverable."""
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
    """On what a Run is worked at, for tags."""
    device = world.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {
        "device": name,
        "workers": str(world.size),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
    }
