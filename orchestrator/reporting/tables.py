"""Tables of a comparison as text, Markdown, CSV and JSON."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.reporting.comparison import Row, RunRecord, Sample, Table, finite
from trainables.metrics import in_percent

JSON_KEYS = ("stage", "label", "metric", "n", "mean", "std", "reference")


_CSV_COLUMNS = (*JSON_KEYS, "trainable", "dataset")


_EMPTY = "No Run of the compared stages reports the metric."


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


def _rows(tables: Iterable[Table]) -> list[Row]:
    return [row for each in tables for row in each.rows]


def _plain(row: Row, key: str) -> Any:
    value = getattr(row, key)
    return finite(value) if isinstance(value, float) else value


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
        if each.differences:
            found.append((f"{each.title}: difference, paired by seed", _difference_cells(each)))
    return found + _classes(tables)


def _difference_cells(table: Table) -> list[list[str]]:
    metric = table.rows[0].metric
    lines = [["labels", f"{metric} (percentage points)" if in_percent(metric) else metric, "n"]]
    for pair in table.differences:
        figure = _with_spread(pair, metric, "+")
        lines.append([f"{pair.one.label} - {pair.other.label}", figure, str(pair.n)])
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
