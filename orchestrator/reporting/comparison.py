"""Runs → tables: mean, standard deviation and n over seeds, beside the figures of a report.

Plain data in, plain data out. Runs of different tasks or data sets never share a table, and Runs
of different configurations never share a row.
"""

import itertools
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

_LISTED = 8  # Runs named in a note before it says "and 3 more"


@dataclass(frozen=True)
class RunRecord:
    """What happened to one Run. state: PENDING RUNNING FINISHED FAILED KILLED BLOCKED."""

    stage: str
    label: str  # stage plus grid values: one configuration
    seed: int
    key: str
    state: str
    run_id: str | None  # None: never started
    trainable: str
    dataset: str  # fingerprint
    data_name: str  # what the study calls it
    metrics: Mapping[str, float]  # final values
    history: Mapping[str, Sequence[tuple[int, float]]]  # metric → (epoch, value), may be empty


@dataclass(frozen=True)
class Comparison:
    """What a study compares. stages None: every stage of the given Runs.

    rows `label`: in the order of the plan; `stage`: one stage after the other, as `stages` says.
    """

    metric: str
    stages: tuple[str, ...] | None
    rows: Literal["stage", "label"]
    plots: tuple[str, ...]
    reference: Mapping[str, float]  # label or stage → figure of a report, in the metric's unit
    differences: tuple[tuple[str, str], ...] = ()  # pairs of stages: the first minus the second


class Sample(ABC):
    """Figures of the same thing, one a seed."""

    @property
    @abstractmethod
    def values(self) -> tuple[float, ...]: ...

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """None without values, NaN if one of them is not finite: no seed is silently left out."""
        if not self.values:
            return None
        return statistics.mean(self.values) if all(map(math.isfinite, self.values)) else math.nan

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1 in the denominator); None where it is undefined."""
        defined = self.n > 1 and finite(self.mean) is not None
        return statistics.stdev(self.values) if defined else None


@dataclass(frozen=True)
class Row(Sample):
    """One configuration over its seeds."""

    stage: str
    label: str
    trainable: str
    dataset: str
    data_name: str
    metric: str
    runs: tuple[RunRecord, ...]  # the finished Runs that report the metric
    reference: float | None

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(float(run.metrics[self.metric]) for run in self.runs)

    @property
    def by_seed(self) -> dict[int, float]:
        return {run.seed: value for run, value in zip(self.runs, self.values, strict=True)}

    @property
    def difference(self) -> float | None:
        """Mean minus reference, None where either is missing."""
        mean, reference = finite(self.mean), finite(self.reference)
        return None if mean is None or reference is None else mean - reference


@dataclass(frozen=True)
class PairedDifference(Sample):
    """How far one configuration is ahead of another, over the seeds that both have. A paired
    difference: what a seed does to both alike (its split, its order) is not in its spread."""

    one: Row
    other: Row

    @property
    def values(self) -> tuple[float, ...]:
        theirs = self.other.by_seed
        return tuple(v - theirs[seed] for seed, v in self.one.by_seed.items() if seed in theirs)


@dataclass(frozen=True)
class Table:
    """Rows of one trainable on one data set, and the differences that were asked for."""

    title: str
    rows: tuple[Row, ...]
    differences: tuple[PairedDifference, ...] = ()


def table(runs: Iterable[RunRecord], spec: Comparison) -> list[Row]:
    """One row a label, also without a finished Run; none for a stage that lacks the metric."""
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in _compared(runs, spec):
        group = (run.stage, run.label, run.trainable, run.dataset)
        groups.setdefault(group, []).append(run)
    rows = [_row(group, spec) for group in groups.values()]
    if spec.rows == "stage":
        order = spec.stages or tuple(dict.fromkeys(row.stage for row in rows))
        rows.sort(key=lambda row: order.index(row.stage))
    return rows


def tables(runs: Iterable[RunRecord], spec: Comparison) -> list[Table]:
    """The rows of `table`, one Table for each trainable and data set."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in table(runs, spec):
        groups.setdefault((row.trainable, row.dataset), []).append(row)
    return [
        Table(f"{trainable} on {rows[0].data_name}", tuple(rows), tuple(_differences(rows, spec)))
        for (trainable, _), rows in groups.items()
    ]


def _differences(rows: Sequence[Row], spec: Comparison) -> Iterator[PairedDifference]:
    """Of stages with several configurations those of the same grid values, or one with all."""
    for pair in spec.differences:
        ones, others = ([row for row in rows if row.stage == stage] for stage in pair)
        for one, other in itertools.product(ones, others):
            same = one.label[len(one.stage) :] == other.label[len(other.stage) :]
            if same or min(len(ones), len(others)) == 1:
                yield PairedDifference(one, other)


def unfinished(runs: Iterable[RunRecord], spec: Comparison) -> str | None:
    """One line that names the compared Runs no row counts, with the reason; None if all count."""
    asked = _compared(runs, spec)
    waiting, lacking = [], []
    for run in asked:
        if run.state != "FINISHED":
            waiting.append(f"{run.label} seed {run.seed} ({run.state})")
        elif spec.metric not in run.metrics:
            lacking.append(f"{run.label} seed {run.seed}")
    parts = []
    if waiting:
        parts.append(f"{len(waiting)} of {len(asked)} Runs not finished: {_some(waiting)}")
    if lacking:
        parts.append(f"{len(lacking)} finished without {spec.metric}: {_some(lacking)}")
    return "; ".join(parts) or None


def _compared(runs: Iterable[RunRecord], spec: Comparison) -> list[RunRecord]:
    """Runs of the stages asked for, without those whose finished Runs all lack the metric."""
    asked = [run for run in runs if spec.stages is None or run.stage in spec.stages]
    finished = [run for run in asked if run.state == "FINISHED"]
    reporting = {run.stage for run in finished if spec.metric in run.metrics}
    silent = {run.stage for run in finished} - reporting
    return [run for run in asked if run.stage not in silent]


def _row(runs: Sequence[RunRecord], spec: Comparison) -> Row:
    """runs: of one configuration."""
    one, metric = runs[0], spec.metric
    done = tuple(run for run in runs if run.state == "FINISHED" and metric in run.metrics)
    reference = spec.reference.get(one.label, spec.reference.get(one.stage))
    return Row(
        one.stage, one.label, one.trainable, one.dataset, one.data_name, metric, done, reference
    )


def finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
