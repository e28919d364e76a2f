"""The trials of a search as its driver records them: values, epochs, best figure, how each ended.

The file lies in the search's folder of the store, `trials.json`, and outlives the driver.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.storage.files import read_json, write_json
from orchestrator.storage.record_shapes import TrialsRecord
from trainables.engine.early_stopping import best_epoch
from trainables.metrics import Mode

State = Literal["RUNNING", "FINISHED", "STOPPED", "FAILED"]
NAME = "trials.json"
_NUMBER = re.compile(r"\d[\d.e+-]*")


@dataclass(frozen=True)
class Trial:
    """One configuration of a search. state STOPPED: the scheduler ended it early."""

    index: int
    values: Mapping[str, Any]
    key: str  # of its Run
    label: str
    state: State = "RUNNING"
    epochs: int = 0
    figure: float | None = None  # the search's metric at its best epoch
    best: int | None = None  # that epoch
    reason: str = ""
    ended: float | None = None  # seconds that the search had taken, all its drivers together
    # keys of the Runs that it starts from, where it trains them too
    upstream: Sequence[str] = field(default_factory=list)
    # PBT: the values that it continues with since it copied from another trial, `changes` included
    evolved_values: Mapping[str, Any] | None = None
    # PBT: when it copied from which trial: `epoch`, `trial` (its index), `values`
    lineage: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return the configuration with which a Run from scratch gives what this trial gives."""
        return self.values if self.evolved_values is None else self.evolved_values

    @property
    def current(self) -> dict[str, Any]:
        """Return the values it is configured with now, after every change."""
        values = dict(self.recipe)
        for change in values.pop("changes", ()):
            values |= {name: value for name, value in change.items() if name != "epoch"}
        return values

    def with_history(
        self, history: Sequence[Mapping[str, float]], metric: str, mode: Mode
    ) -> "Trial":
        """Return a copy with the number of epochs so far, the best epoch and its figure."""
        if not history:
            return self
        best = best_epoch(history, metric, mode)
        (figure,) = [entry[metric] for entry in history if entry["epoch"] == best]
        return replace(self, epochs=len(history), figure=figure, best=best)


# fields of a trial under the names that stores written before have
_OLD_NAMES = {"ahead": "upstream", "became": "evolved_values", "ancestry": "lineage"}


def _read(item: Mapping[str, Any]) -> Trial:
    return Trial(**{_OLD_NAMES.get(name, name): value for name, value in item.items()})


class Trials:
    """The trials of one search, kept in a file that is whole at any time."""

    def __init__(self, folder: Path) -> None:
        """folder: of the search in the store; it need not exist."""
        self._path, self._guard = folder / NAME, threading.Lock()
        record = read_json(self._path, TrialsRecord) or {}
        self.seconds = float(record.get("seconds", 0.0))
        self.most: int | None = record.get("most")  # configurations that exist, where that is known
        self.evolved: int = record.get("evolved", 0)  # the last boundary passed
        self._trials = {item["index"]: _read(item) for item in record.get("trials", ())}

    def all(self, count: int | None = None) -> list[Trial]:
        """Return all trials by number. count: only those below it."""
        with self._guard:
            trials = sorted(self._trials.values(), key=lambda trial: trial.index)
        return [trial for trial in trials if count is None or trial.index < count]

    def get(self, index: int) -> Trial | None:
        return self._trials.get(index)

    def put(self, trial: Trial, seconds: float) -> None:
        """Record a trial. seconds: that the search has taken so far."""
        with self._guard:
            self._trials[trial.index], self.seconds = trial, seconds
            self._write()

    def evolve(self, changed: Sequence[Trial], epoch: int, seconds: float) -> None:
        """Record that a population has passed the boundary after `epoch`, and what changed."""
        with self._guard:
            self._trials |= {trial.index: trial for trial in changed}
            self.evolved, self.seconds = epoch, seconds
            self._write()

    def exhausted(self) -> None:
        """Record that no configuration is left to try."""
        with self._guard:
            self.most = len(self._trials)
            self._write()

    def _write(self) -> None:
        items = [asdict(trial) for trial in self._trials.values()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        record = {"seconds": self.seconds, "most": self.most, "evolved": self.evolved}
        write_json(self._path, {**record, "trials": items})

    def have_found(self, count: int) -> bool:
        """Return whether `count` trials have ended, and at least one with a figure."""
        trials = self.all(count)
        ended = [trial for trial in trials if trial.state != "RUNNING"]
        expected = count if self.most is None else min(count, self.most)
        return len(ended) >= expected and bool(ranked(ended, "max"))


def ranked(trials: Sequence[Trial], mode: Mode) -> list[Trial]:
    """Sort trials, the best first. Those that were stopped early come after all that trained to the
    end: they were stopped because they were worse."""
    sign = 1 if mode == "min" else -1
    scored = [trial for trial in trials if trial.figure is not None and trial.state != "FAILED"]
    return sorted(scored, key=lambda t: (t.state == "STOPPED", sign * (t.figure or 0.0), t.index))


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """Return how many trials are in each state, without states that none is in."""
    numbers = {state: sum(t.state == state for t in trials) for state in State.__args__}  # type: ignore[attr-defined]
    return {state: number for state, number in numbers.items() if number}


def causes(trials: Sequence[Trial]) -> list[tuple[str, int]]:
    """Return reason → number of trials that failed for it, the most frequent first. Reasons that
    differ in numbers alone count as one, in the words of the first."""
    reasons = [trial.reason for trial in trials if trial.state == "FAILED"]
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(_NUMBER.sub("#", reason), []).append(reason)
    counted = [(reasons[0], len(reasons)) for reasons in kinds.values()]
    return sorted(counted, key=lambda item: -item[1])
