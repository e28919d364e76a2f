"""Writes the tables of a comparison as text, Markdown, CSV and JSON."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.reporting.comparison import Row, RunRecord, Sample, Table, finite
from trainables.metrics import METRICS, in_percent, metric_of

JSON_KEYS = ("stage", "label", "metric", "n", "mean", "std", "reference")
_CSV_COLUMNS = (*JSON_KEYS, "trainable", "dataset")
_EMPTY = "No Run of the compared stages reports the metric."


def shown(row: Row) -> str:
    """`71.23 ± 0.45`: mean and deviation, percent with two decimals, else four digits."""
    return _with_spread(row, row.metric) if row.runs else "no finished Run"


def _with_spread(sample: Sample, metric: str, sign: str = "") -> str:
    """Return mean ± standard deviation. sign: `+` to write the sign of a difference."""
    if sample.mean is None:
        return "-"
    if not math.isfinite(sample.mean):
        return "not finite"
    spread = "" if sample.std is None else f" ± {number(metric, sample.std)}"
    return number(metric, sample.mean, sign) + spread


def as_json(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """Return the rows with the keys JSON_KEYS; shares in [0, 1], null for a number that is not
    finite."""
    return [{key: _plain(row, key) for key in JSON_KEYS} for row in _rows(tables)]


def as_csv(tables: Iterable[Table]) -> str:
    """Return the rows as in JSON, empty for null, with trainable and data set."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    writer.writerows([_plain(row, key) for key in _CSV_COLUMNS] for row in _rows(tables))
    return out.getvalue()


def as_text(tables: Sequence[Table]) -> str:
    """Tables with aligned columns for the terminal."""
    return "\n\n".join(f"{title}\n{_aligned(cells)}" for title, cells in _printed(tables)) or _EMPTY


def as_markdown(tables: Sequence[Table], question: str, study: str, note: str | None = None) -> str:
    """Return a page with the study's question and its tables. note: a line below them."""
    parts = [f"# {study}", question.strip()]
    for title, cells in _printed(tables):
        header, *rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        rule = ["---"] + ["---:"] * (len(header) - 1)
        lines = [f"| {' | '.join(line)} |" for line in [header, rule, *rows]]
        parts += [f"## {title}", "\n".join(lines)]
    parts.append("Mean ± one sample standard deviation over n seeds." if tables else _EMPTY)
    return "\n\n".join(part for part in [*parts, note] if part) + "\n"


def _rows(tables: Iterable[Table]) -> list[Row]:
    return [row for table in tables for row in table.rows]


def _plain(row: Row, key: str) -> Any:
    """Return a value of a row as JSON can hold it."""
    value = getattr(row, key)
    return finite(value) if isinstance(value, float) else value


def number(metric: str, value: float | None, sign: str = "") -> str:
    """Return the figure of a metric without its unit; `-` where it is missing. sign: `+` to write
    it."""
    if value is None:
        return "-"
    if in_percent(metric):
        return f"{100 * value:{sign}z.2f}"
    return f"{value:{sign}z#.4g}".rstrip(".")


def _cells(table: Table) -> list[list[str]]:
    """Return the header and rows as text; with columns of the reference where a row has one."""
    metric = table.rows[0].metric
    lines = [["label", f"{metric} (%)" if in_percent(metric) else metric, "n"]]
    lines += [[row.label, shown(row), str(row.n)] for row in table.rows]
    if any(row.reference is not None for row in table.rows):
        lines[0] += ["reference", "difference"]
        for line, row in zip(lines[1:], table.rows, strict=True):
            line += [number(metric, row.reference), number(metric, row.difference, "+")]
    return lines


def _printed(tables: Sequence[Table]) -> list[tuple[str, list[list[str]]]]:
    """Return the title and cells of all tables, each followed by its differences, then the IoU per
    class."""
    printed = []
    for table in tables:
        printed.append((table.title, _cells(table)))
        if table.differences:
            title = f"{table.title}: difference, paired by seed"
            printed.append((title, _difference_cells(table)))
    return printed + _class_tables(tables)


def _difference_cells(table: Table) -> list[list[str]]:
    metric = table.rows[0].metric
    lines = [["labels", f"{metric} (percentage points)" if in_percent(metric) else metric, "n"]]
    for difference in table.differences:
        labels = f"{difference.first.label} - {difference.second.label}"
        lines.append([labels, _with_spread(difference, metric, "+"), str(difference.n)])
    return lines


def _class_tables(tables: Iterable[Table]) -> list[tuple[str, list[list[str]]]]:
    """Return the IoU of each class in percent, for tables of mean IoU: a row per label.

    Means are over the seeds that have the class's figure. A class without pixels in the split has
    no column.
    """
    printed = []
    for table in tables:
        metric = table.rows[0].metric
        split = metric.partition("/")[0]
        prefix = f"{split}/{METRICS['iou'].name}/"
        runs = [run for row in table.rows for run in row.runs]
        names = sorted({name for run in runs for name in run.metrics if name.startswith(prefix)})
        if metric_of(metric) is METRICS["miou"] and names:
            cells = [["label", *(name.removeprefix(prefix) for name in names)]]
            for row in table.rows:
                cells.append([row.label, *(_class_figure(row.runs, name) for name in names)])
            printed.append((f"{table.title}: {split} IoU of each class (%)", cells))
    return printed


def _class_figure(runs: Sequence[RunRecord], name: str) -> str:
    """Return mean ± standard deviation of a metric over the Runs that have it."""
    values = [run.metrics[name] for run in runs if name in run.metrics]
    if not values or not all(map(math.isfinite, values)):
        return "-"
    spread = f" ± {number(name, statistics.stdev(values))}" if len(values) > 1 else ""
    return number(name, statistics.mean(values)) + spread


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return the cells as lines: the first column aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(row) for row in rows)
