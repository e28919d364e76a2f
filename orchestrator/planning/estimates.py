"""Estimate how long a study still takes, from Runs of the same kind that have finished."""

import heapq
import json
import logging
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.planning.plan import UnknownPlan, from_plain
from orchestrator.planning.run import Run
from orchestrator.storage.files import read_json
from orchestrator.storage.run_records import ATTEMPT, DONE, Store
from orchestrator.study_data.seed_cuts import cut_of

log = logging.getLogger(__name__)
_ENOUGH = 20  # finished Runs of a kind: a store may have thousands


class Task(NamedTuple):
    """Holds a Run that is still to train, or the rest of one."""

    key: str
    parent: str | None  # key of the Run that must finish first
    seconds: float
    running: bool = False


@dataclass(frozen=True)
class Estimate:
    """Says how long Runs take. seconds: until the last one ends; training_seconds: of all Runs
    together; unknown: labels of which no Run of their kind has finished."""

    seconds: float
    training_seconds: float
    unknown: tuple[str, ...] = ()


def kind_of(run: Run) -> str:
    """Name the kind of a Run: Runs of one kind take as long for an epoch.

    It has trainable, data set and configuration. Decimal numbers, such as learning rates, the
    number of epochs and the fold or split of a Run are left out.
    """
    cut = cut_of(str(run.config.get("dataset")))
    config = {
        name: value
        for name, value in run.config.items()
        if name != "epochs" and not isinstance(value, float)
    }
    if cut:
        config["dataset"] = cut.data
    dataset = f"{cut.folds or ''} {cut.kind}s" if cut else run.dataset
    return json.dumps([run.trainable, dataset, config], sort_keys=True, default=str)


def epochs_of(run: Run) -> float:
    """Return the epochs of a Run; 1 of a producer, which has none."""
    return float(run.config.get("epochs", 1))


@dataclass
class Times:
    """Holds how long finished Runs took. paces: kind → seconds an epoch (of a producer: in all);
    around: seconds that a Run takes beside its training."""

    paces: dict[str, float]
    around: float = 0.0

    def seconds(self, run: Run, done: float = 0.0) -> float | None:
        """Return how long a Run takes; None where none of its kind is known. done: epochs that it
        has already."""
        pace = self.paces.get(kind_of(run))
        return None if pace is None else max(0.0, epochs_of(run) - done) * pace + self.around


def known_times(store: Store, runs: Iterable[Run], wanted: Iterable[Run]) -> Times:
    """Return the medians of what finished Runs took.

    runs: may have finished; a few of each kind are read. wanted: Runs of the kinds that are asked
    for.
    """
    kinds = {kind_of(run) for run in wanted}
    paces: dict[str, list[float]] = {}
    around: list[float] = []
    for key, run in {run.key: run for run in runs}.items():
        kind = kind_of(run)
        if kind not in kinds or len(paces.get(kind, ())) == _ENOUGH:
            continue
        folder = store.run(key)
        result = folder.result()
        if result is None or not result.get("seconds"):
            continue
        seconds = float(result["seconds"])
        epochs = max(1, len(result["history"])) if "epochs" in run.config else 1
        paces.setdefault(kind, []).append(seconds / epochs)
        files = [folder.path / name for name in (ATTEMPT, DONE)]
        # the first attempt's file is as old as the Run
        if folder.attempt() == 1 and all(file.is_file() for file in files):
            began, ended = (file.stat().st_mtime for file in files)
            around.append(max(0.0, ended - began - seconds))
    medians = {kind: statistics.median(found) for kind, found in paces.items()}
    return Times(medians, statistics.median(around) if around else 0.0)


def stored_runs(plans: Path) -> list[Run]:
    """Return the Runs of all plans that a home has stored. plans: their folder."""
    found: list[Run] = []
    for path in sorted(plans.glob("*.json")):
        try:
            found += from_plain(read_json(path) or {})
        except UnknownPlan as error:
            log.debug("%s: %s", path, error)
    return found


def estimate(runs: Sequence[Run], times: Times, done: Mapping[str, float], slots: int) -> Estimate:
    """Estimate how long Runs take that have not finished.

    runs: in the order in which they start, without finished ones; times: as `known_times` returns
    them; done: key → epochs that a Run has already; slots: Runs at once, at least 1.
    """
    tasks, unknown = [], []
    for run in runs:
        seconds = times.seconds(run, done.get(run.key, 0.0))
        if seconds is None:
            unknown.append(run.label)
        else:
            tasks.append(Task(run.key, run.parent, seconds))
    labels = tuple(dict.fromkeys(unknown))
    return Estimate(last_end(tasks, slots), sum(task.seconds for task in tasks), labels)


def last_end(tasks: Sequence[Task], slots: int) -> float:
    """Return in how many seconds the last task ends, where at most so many run at once.

    Each task takes the first slot that is free once its parent has ended, in the order given;
    running ones have their slot already.
    """
    ends: dict[str, float] = {}
    free = [0.0] * max(slots, 1)
    heapq.heapify(free)
    for task in sorted(tasks, key=lambda task: not task.running):
        begin = max(heapq.heappop(free), ends.get(task.parent or "", 0.0))
        ends[task.key] = begin + task.seconds
        heapq.heappush(free, ends[task.key])
    return max(ends.values(), default=0.0)
