"""Runs → tables: mean, standard deviation and n over seeds, beside the figures of a report.

Plain data in, plain data out. Runs of different tasks or data sets never share a table, and Runs
of different configurations never share a row.
"""

import csv
import io
import itertools
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

JSON_KEYS = ("stage", "label", "metric", "n", "mean", "std", "reference")
_CSV_COLUMNS = (*JSON_KEYS, "trainable", "dataset")
_EMPTY = "No Run of the compared stages reports the metric."
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
    gains: tuple[tuple[str, str], ...] = ()  # stages: how far the first is ahead of the second


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
        defined = self.n > 1 and _finite(self.mean) is not None
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
        mean, reference = _finite(self.mean), _finite(self.reference)
        return None if mean is None or reference is None else mean - reference


@dataclass(frozen=True)
class Gain(Sample):
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
    gains: tuple[Gain, ...] = ()


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
        Table(f"{trainable} on {rows[0].data_name}", tuple(rows), tuple(_gains(rows, spec)))
        for (trainable, _), rows in groups.items()
    ]


def _gains(rows: Sequence[Row], spec: Comparison) -> Iterator[Gain]:
    """Of stages with several configurations those of the same grid values, or one with all."""
    for pair in spec.gains:
        ones, others = ([row for row in rows if row.stage == stage] for stage in pair)
        for one, other in itertools.product(ones, others):
            same = one.label[len(one.stage) :] == other.label[len(other.stage) :]
            if same or min(len(ones), len(others)) == 1:
                yield Gain(one, other)


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


def in_percent(metric: str) -> bool:
    """Whether the metric is a share in [0, 1] that people read in percent."""
    return metric.endswith(("accuracy", "iou")) or "/iou/" in metric


def shown(row: Row) -> str:
    """`71.23 ± 0.45` for people: percent with two decimals, else four significant digits."""
    return _with_spread(row, row.metric) if row.runs else "no finished Run"


def _with_spread(sample: Sample, metric: str, sign: str = "") -> str:
    if sample.mean is None:
        return "-"
    if not math.isfinite(sample.mean):
        return "not finite"
    spread = "" if sample.std is None else f" ± {number(metric, sample.std)}"
    return number(metric, sample.mean, sign) + spread


def as_json(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Rows with exactly the keys JSON_KEYS; raw fractions, null for what is not a finite number."""
    return [{key: _plain(row, key) for key in JSON_KEYS} for row in _rows(tables)]


def as_csv(tables: Iterable[Table]) -> str:
    """The rows as in JSON, empty for null, and which trainable and data set they belong to."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    writer.writerows([_plain(row, key) for key in _CSV_COLUMNS] for row in _rows(tables))
    return out.getvalue()


def as_text(tables: Sequence[Table]) -> str:
    """Aligned columns for the terminal."""
    return "\n\n".join(f"{title}\n{_aligned(cells)}" for title, cells in _printed(tables)) or _EMPTY


def as_markdown(tables: Sequence[Table], question: str, study: str, note: str | None = None) -> str:
    """The report page: the study's question and its tables. note: a line under them."""
    parts = [f"# {study}", question.strip()]
    for title, cells in _printed(tables):
        header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        rule = ["---"] + ["---:"] * (len(header) - 1)
        lines = [f"| {' | '.join(line)} |" for line in [header, rule, *rows]]
        parts += [f"## {title}", "\n".join(lines)]
    parts.append("Mean ± one sample standard deviation over n seeds." if tables else _EMPTY)
    return "\n\n".join(part for part in [*parts, note] if part) + "\n"


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


def _rows(tables: Iterable[Table]) -> list[Row]:
    return [row for each in tables for row in each.rows]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _plain(row: Row, key: str) -> Any:
    value = getattr(row, key)
    return _finite(value) if isinstance(value, float) else value


def number(metric: str, value: float | None, sign: str = "") -> str:
    """sign `+` for a difference. A missing value is a dash."""
    if value is None:
        return "-"
    if in_percent(metric):
        return f"{100 * value:{sign}z.2f}"
    return f"{value:{sign}z#.4g}".rstrip(".")


def _cells(table: Table) -> list[list[str]]:
    """The header and the rows, as text; the reference's columns only where there is one."""
    metric = table.rows[0].metric
    lines = [["label", f"{metric} (%)" if in_percent(metric) else metric, "n"]]
    lines += [[row.label, shown(row), str(row.n)] for row in table.rows]
    if any(row.reference is not None for row in table.rows):
        lines[0] += ["reference", "difference"]
        for line, row in zip(lines[1:], table.rows, strict=True):
            line += [number(metric, row.reference), number(metric, row.difference, "+")]
    return lines


def _printed(tables: Sequence[Table]) -> list[tuple[str, list[list[str]]]]:
    """Title and cells of every table, each with its differences; those of each class after the
    means that hide them."""
    found = []
    for each in tables:
        found.append((each.title, _cells(each)))
        if each.gains:
            found.append((f"{each.title}: difference, paired by seed", _gain_cells(each)))
    return found + _classes(tables)


def _gain_cells(table: Table) -> list[list[str]]:
    metric = table.rows[0].metric
    lines = [["labels", f"{metric} (percentage points)" if in_percent(metric) else metric, "n"]]
    for gain in table.gains:
        figure = _with_spread(gain, metric, "+")
        lines.append([f"{gain.one.label} - {gain.other.label}", figure, str(gain.n)])
    return lines


def _classes(tables: Iterable[Table]) -> list[tuple[str, list[list[str]]]]:
    """Of tables of mean IoU: a row a label and a column a class, in percent, over the seeds that
    have a figure of it. A class of which the split shows no pixel has no column."""
    found = []
    for one in tables:
        part, _, figure = one.rows[0].metric.partition("/")
        prefix = f"{part}/iou/"
        runs = [run for row in one.rows for run in row.runs]
        names = sorted({name for run in runs for name in run.metrics if name.startswith(prefix)})
        if figure == "miou" and names:
            cells = [["label", *(name.removeprefix(prefix) for name in names)]]
            cells += [[row.label, *(_spread(row.runs, name) for name in names)] for row in one.rows]
            found.append((f"{one.title}: {part} IoU of each class (%)", cells))
    return found


def _spread(runs: Sequence[RunRecord], name: str) -> str:
    values = [run.metrics[name] for run in runs if name in run.metrics]
    if not values or not all(map(math.isfinite, values)):
        return "-"
    spread = f" ± {number(name, statistics.stdev(values))}" if len(values) > 1 else ""
    return number(name, statistics.mean(values)) + spread


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """First column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(row) for row in rows)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
