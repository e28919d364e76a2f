"""Defines where the training loop keeps its state: a protocol, and one that keeps it in memory.

Every rank calls `newest`, `read` and `weights`; only rank 0 calls what writes.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from torch import Tensor

from trainables.metrics import Epochs

Report = Callable[[Mapping[str, float]], None]  # called with the figures of one epoch
Arrays = Mapping[str, "np.ndarray[Any, Any]"]


class Unrecoverable(Exception):
    """A training cannot continue, and another try would fail too. The text is one line: why."""


@dataclass(frozen=True)
class TrainingState:
    """All that is needed to continue after an epoch.

    epoch: epochs done; weights and optimizer: state dicts; history: one entry per epoch; seconds:
    duration of all epochs with their evaluation.
    """

    epoch: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    history: Epochs
    seconds: float


@dataclass(frozen=True)
class Progress:
    """Says how far a Run is.

    done: of `total`, in [0, total]: epochs plus the fraction of the running one, or a producer's
    images; loss: mean over the running epoch, None without one; seconds_left: None before the speed
    is known; history: figures of the epochs done; facts: as `Result.facts`.
    """

    done: float
    total: int
    unit: Literal["epochs", "images"]
    loss: float | None
    images_per_s: float
    seconds_left: float | None
    history: Epochs
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """Holds what a finished training gives.

    history: one entry per epoch; best_epoch: from 1; test: metrics of the best epoch on the test
    set; seconds: duration of all epochs; facts: a few words each on `weight_transfer`,
    `precision`, `warning`, `absent` classes if there are any, and the `one_class` that is predicted
    everywhere if there is one.
    """

    history: Epochs
    best_epoch: int
    test: Mapping[str, float]
    seconds: float
    facts: Mapping[str, str]


class Checkpoints(Protocol):
    """Keeps the state of one training. Any call may raise to end the training."""

    def newest(self) -> Any | None:
        """Return a picklable handle of the newest complete checkpoint, None before the first.
        Called on rank 0, which sends the handle to all ranks."""

    def read(self, handle: Any) -> TrainingState:
        """Return the state behind a handle, on the CPU."""

    def weights(self, epoch: int) -> Mapping[str, Tensor]:
        """Return the weights after an epoch. Raises Unrecoverable if they are gone."""

    def save(self, state: TrainingState, best_epoch: int) -> None:
        """Keep a new epoch; of the earlier ones only the previous and the best are needed. What
        must be kept is copied before the call returns, and may be stored later."""

    def settle(self) -> None:
        """Return when the weights of the best and of the newest epoch are stored, for every
        rank."""

    def keep(self, file: str, arrays: Arrays) -> None:
        """Keep arrays to be drawn later. file: as in `record_files`; may be lost."""

    def report(self, progress: Progress) -> None:
        """Show how far the training is. Called about once a second."""

    def finish(self, result: Result) -> None:
        """Keep the result. Called once, at the end."""


class InMemory:
    """Keeps checkpoints in this process: for notebooks and tests."""

    def __init__(self) -> None:
        self.states: dict[int, TrainingState] = {}
        self.arrays: dict[str, Arrays] = {}
        self.progress: Progress | None = None
        self.result: Result | None = None

    def newest(self) -> int | None:
        return max(self.states, default=None)

    def read(self, handle: int) -> TrainingState:
        return self.states[handle]

    def weights(self, epoch: int) -> Mapping[str, Tensor]:
        return self.states[epoch].weights

    def save(self, state: TrainingState, best_epoch: int) -> None:
        copied = {name: value.detach().cpu().clone() for name, value in state.weights.items()}
        optimizer = copy.deepcopy(state.optimizer)
        kept = TrainingState(state.epoch, copied, optimizer, list(state.history), state.seconds)
        kept_epochs = {state.epoch - 1, best_epoch}
        self.states = {e: s for e, s in self.states.items() if e in kept_epochs} | {
            state.epoch: kept
        }

    def settle(self) -> None:
        """Do nothing: all is in memory."""

    def keep(self, file: str, arrays: Arrays) -> None:
        self.arrays[file] = dict(arrays)

    def report(self, progress: Progress) -> None:
        self.progress = progress

    def finish(self, result: Result) -> None:
        self.result = result
