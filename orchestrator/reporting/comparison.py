"""Turns Runs into tables: mean, its interval and n over seeds, beside reference figures.

Plain data in, plain data out. Runs of different tasks or data sets never share a table, and Runs
of different configurations never share a row.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Literal

from orchestrator.reporting.numbers import listed
from orchestrator.reporting.sample import Sample, finite
from orchestrator.statistics.images import ImageTest
from orchestrator.statistics.intervals import Interval, mean_interval, overlap_of_folds
from orchestrator.statistics.paired import PairedTest, paired_test
from trainables.metrics import OF_PARTS, in_percent


class State(StrEnum):
    """The state of a Run or of a search, under the names that MLflow and our JSON output show."""

    PENDING = "PENDING"  # not started; MLflow says SCHEDULED where it was tried before
    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"  # it ended with an error of its own
    KILLED = "KILLED"  # its process, its node or its driver was stopped
    BLOCKED = "BLOCKED"  # what it starts from did not finish

    @property
    def blocks(self) -> bool:
        """Return whether nothing can start from a Run or a search in this state."""
        return self in (State.FAILED, State.KILLED, State.BLOCKED)


@dataclass(frozen=True)
class RunRecord:
    """One Run and its figures."""

    stage: str
    label: str  # stage plus grid values: one configuration
    seed: int
    key: str
    state: State
    run_id: str | None  # None: never started
    trainable: str
    dataset: str  # fingerprint; of folds one for all of them
    data_name: str  # what the study calls it
    metrics: Mapping[str, float]  # final values
    history: Mapping[str, Sequence[tuple[int, float]]]  # metric → (epoch, value), may be empty
    # what it ran on: precision, device, torch, workers, threads; and the number of its test images
    facts: Mapping[str, str] = field(default_factory=dict)
    fold: int | None = None  # that it tests, where its seed says which
    folds: int = 1  # of its data set
    split: int | None = None  # the seed of its split, where each seed has one of its own
    test_ratio: float = 0.0  # test images per learned one of such a split; 0 where tests are equal
    vary: tuple[str, ...] = ("init", "order")  # what its seed draws

    @property
    def name(self) -> str:
        return f"{self.label} seed {self.seed}"


@dataclass(frozen=True)
class Comparison:
    """Says what a study compares.

    stages: None for every stage. rows: `label` for the order of the plan, `stage` for the order of
    `stages`.
    """

    metric: str
    stages: tuple[str, ...] | None
    rows: Literal["stage", "label"]
    plots: tuple[str, ...]
    reference: Mapping[str, float]  # label or stage → figure of a report, in the metric's unit
    differences: tuple[tuple[str, str], ...] = ()  # pairs of stages: first minus second
    figures: tuple[str, ...] = ()  # more figures of the test, such as `macro_f1`
    searched: tuple[str, ...] = ()  # stages whose configuration a search has chosen
    # data set → why figures of it may be too good, such as copies that are kept
    cautions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
    def interval(self) -> Interval | None:
        """No metric is negative, and a share is 1 at most: the interval is cut to that."""
        within = Interval(0.0, 1.0 if in_percent(self.metric) else math.inf)
        return mean_interval(self.values, within=within, overlap=self.overlap)

    @property
    def tested_folds(self) -> set[int]:
        """Return the folds that its Runs test; empty where its data has none by seed."""
        return {run.fold for run in self.runs if run.fold is not None}

    @property
    def splits(self) -> int:
        """Return how many splits its Runs have, where each seed has one of its own; else 0."""
        return len({run.split for run in self.runs if run.split is not None})

    @property
    def overlap(self) -> float:
        """Return `overlap_of_folds` where its Runs test more than one fold, and `test_ratio` where
        they test several splits; else 0."""
        if len(self.tested_folds) > 1:
            return overlap_of_folds(self.runs[0].folds)
        return max(run.test_ratio for run in self.runs) if self.splits > 1 else 0.0

    @property
    def by_seed(self) -> dict[int, float]:
        return {run.seed: value for run, value in zip(self.runs, self.values, strict=True)}

    @property
    def difference(self) -> float | None:
        """Return the mean minus reference, None where either is missing."""
        mean, reference = finite(self.mean), finite(self.reference)
        return None if mean is None or reference is None else mean - reference


@dataclass(frozen=True)
class PairedDifference(Sample):
    """The difference of two configurations, seed by seed, over the seeds that both have.

    What a seed does to both alike (its order of images, its initialization) is not in the standard
    deviation of a paired difference.
    """

    first: Row
    second: Row
    images: ImageTest | None = None  # of its pairs over the test images
    unkept: tuple[str, ...] = ()  # Runs of its pairs whose predictions are not kept
    remark: str = ""  # why there is no test over images, although predictions are kept

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds that both have, in the order of the first."""
        return tuple(seed for seed in self.first.by_seed if seed in self.second.by_seed)

    @property
    def unpaired(self) -> tuple[int, ...]:
        """Return the seeds that only one of the two has, ascending."""
        return tuple(sorted(self.first.by_seed.keys() ^ self.second.by_seed.keys()))

    @property
    def metric(self) -> str:
        return self.first.metric

    @property
    def values(self) -> tuple[float, ...]:
        first, second = self.first.by_seed, self.second.by_seed
        return tuple(first[seed] - second[seed] for seed in self.seeds)

    @cached_property
    def test(self) -> PairedTest:
        """Test whether the two differ."""
        first, second = self.first.by_seed, self.second.by_seed
        return paired_test(
            [first[seed] for seed in self.seeds],
            [second[seed] for seed in self.seeds],
            self.overlap,
        )

    @property
    def overlap(self) -> float:
        """Return what its test must know of folds and splits, as `Row.overlap` does."""
        return replace(self.first, runs=self._runs).overlap

    @property
    def repeats(self) -> str:
        """Return what it is over: `3 seeds`, `3 splits`, `5 folds` or `10 seeds and 5 folds`."""
        tested = len({run.fold for run in self._runs})
        if not self.overlap:
            return f"{self.n} seeds"
        if replace(self.first, runs=self._runs).splits:
            return f"{self.n} splits"
        return f"{tested} folds" if tested == self.n else f"{self.n} seeds and {tested} folds"

    @property
    def _runs(self) -> tuple[RunRecord, ...]:
        return tuple(run for run in self.first.runs if run.seed in self.seeds)

    @property
    def interval(self) -> Interval | None:
        return self.test.interval


@dataclass(frozen=True)
class Table:
    """Rows of one trainable on one data set, and the paired differences that the study asks for."""

    title: str
    rows: tuple[Row, ...]
    differences: tuple[PairedDifference, ...] = ()
    figures: tuple[str, ...] = ()  # as in Comparison
    searched: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()  # of its data set

    def rows_of(self, figure: str) -> list[Row]:
        """Return the rows with another figure of the same split, such as `macro_f1`; for `iou`,
        which is one of each class, the rows of each class. Runs without the figure do not count."""
        full = f"{self.rows[0].metric.partition('/')[0]}/{figure}"
        reported = {name for row in self.rows for run in row.runs for name in run.metrics}
        names = [name for name in reported if name == full or name.startswith(f"{full}/")]
        return [
            replace(row, metric=name, reference=None, runs=_reporting(row.runs, name))
            for name in sorted(names) or ([] if figure in OF_PARTS else [full])
            for row in self.rows
        ]


def compared_rows(runs: Iterable[RunRecord], spec: Comparison) -> list[Row]:
    """Return one row per label, also without a finished Run; none for a stage that lacks the
    metric."""
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
    """Return the compared rows, one Table for each trainable and data set."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in compared_rows(runs, spec):
        groups.setdefault((row.trainable, row.dataset), []).append(row)
    return [
        Table(
            f"{trainable} on {rows[0].data_name}",
            tuple(rows),
            tuple(_differences(rows, spec)),
            spec.figures if trainable == "classify" else (),
            spec.searched,
            tuple(
                f"Data {name}: {line}."
                for name in dict.fromkeys(row.data_name for row in rows)
                for line in spec.cautions.get(name, ())
            ),
        )
        for (trainable, _), rows in groups.items()
    ]


def _differences(rows: Sequence[Row], spec: Comparison) -> Iterator[PairedDifference]:
    """The differences between the rows of each pair of stages.

    Rows with the same grid values are paired; the only row of a stage is paired with every row of
    the other.
    """
    for pair in spec.differences:
        firsts, seconds = ([row for row in rows if row.stage == stage] for stage in pair)
        for first, second in itertools.product(firsts, seconds):
            same = first.label[len(first.stage) :] == second.label[len(second.stage) :]
            if same or min(len(firsts), len(seconds)) == 1:
                yield PairedDifference(first, second)


def unfinished(runs: Iterable[RunRecord], spec: Comparison) -> str | None:
    """Return one line that names the compared Runs that no row counts, and why; None if all
    count."""
    compared = _compared(runs, spec)
    waiting, lacking = [], []
    for run in compared:
        if run.state != State.FINISHED:
            waiting.append(f"{run.label} seed {run.seed} ({run.state})")
        elif spec.metric not in run.metrics:
            lacking.append(f"{run.label} seed {run.seed}")
    parts = []
    if waiting:
        parts.append(f"{len(waiting)} of {len(compared)} Runs not finished: {listed(waiting)}")
    if lacking:
        parts.append(f"{len(lacking)} finished without {spec.metric}: {listed(lacking)}")
    return "; ".join(parts) or None


def _compared(runs: Iterable[RunRecord], spec: Comparison) -> list[RunRecord]:
    """Runs of the compared stages, without stages whose finished Runs all lack the metric."""
    wanted = [run for run in runs if spec.stages is None or run.stage in spec.stages]
    finished = [run for run in wanted if run.state == State.FINISHED]
    reporting = {run.stage for run in finished if spec.metric in run.metrics}
    lacking = {run.stage for run in finished} - reporting
    return [run for run in wanted if run.stage not in lacking]


def _row(runs: Sequence[RunRecord], spec: Comparison) -> Row:
    """Return the row of the Runs of one configuration."""
    run, metric = runs[0], spec.metric
    return Row(
        stage=run.stage,
        label=run.label,
        trainable=run.trainable,
        dataset=run.dataset,
        data_name=run.data_name,
        metric=metric,
        runs=_reporting(runs, metric),
        reference=spec.reference.get(run.label, spec.reference.get(run.stage)),
    )


def _reporting(runs: Iterable[RunRecord], metric: str) -> tuple[RunRecord, ...]:
    return tuple(run for run in runs if run.state == State.FINISHED and metric in run.metrics)
