"""Writes the tables of a comparison as text, Markdown and LaTeX, with what they show in words."""

import html
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.reporting.comparison import Row, Table
from orchestrator.reporting.mixtures import mixture_words, one_class_words
from orchestrator.reporting.numbers import interval_text, number, p_text
from orchestrator.reporting.sample import Sample
from orchestrator.reporting.verdicts import (
    Gain,
    caveats,
    gains,
    image_words,
    verdict,
    words_on_folds,
    words_on_searches,
    words_on_seeds,
    words_on_splits,
    words_on_test_set,
)
from trainables.metrics import METRICS, in_percent, metric_of

_EMPTY = "No Run of the compared stages reports the metric."
_INTERVAL = "95 % interval"
_WIDTH = 80  # characters of a line of words
_EXPLAINED = "95 % interval: of the mean over n seeds, by Student's t."
_NO_PREDICTIONS = "No predictions are kept of these Runs: an earlier version has trained them."
_MARKDOWN = re.compile(r"[\\`*|]|(?<=\])[(:\[]|(?<=!)\[")  # the last: of links and pictures
_LATEX = re.compile(r"[\\{}$&#_%~^]")


class Part(NamedTuple):
    """A table as text cells, its first line the header, and the sentences below it."""

    title: str
    cells: list[list[str]]
    sentences: tuple[str, ...] = ()


def shown(row: Row) -> str:
    """`71.23`: the mean, percent with two decimals, else four digits."""
    return _mean(row, row.metric) if row.runs else "no finished Run"


def _mean(sample: Sample, metric: str, sign: str = "") -> str:
    if sample.mean is not None and not math.isfinite(sample.mean):
        return "not finite"
    return number(metric, sample.mean, sign)


def as_text(tables: Sequence[Table]) -> str:
    """Tables with aligned columns for the terminal; words in lines of 80 characters."""
    parts = []
    for part in printed_parts(tables):
        lines = [line for sentence in part.sentences for line in _wrapped(sentence)]
        table = [_aligned(part.cells)] if part.cells else []
        parts.append("\n".join([part.title, *table, *lines]))
    return "\n\n".join(parts) or _EMPTY


def as_markdown(tables: Sequence[Table], question: str, study: str, note: str | None = None) -> str:
    """Return a page with the study's question and its tables. note: a line below them.

    Words of the study are shown as they are: no HTML, picture, link or emphasis is made of them.
    """
    parts = [f"# {_plain(study)}", _plain(question.strip())]
    for part in printed_parts(tables):
        parts += [f"## {_plain(part.title)}", _markdown_table(part.cells)]
        parts += ["\n".join(f"- {_plain(sentence)}" for sentence in part.sentences)]
    parts.append(_EXPLAINED if tables else _EMPTY)
    return "\n\n".join(part for part in [*parts, note] if part) + "\n"


def _markdown_table(cells: Sequence[Sequence[str]]) -> str:
    if not cells:
        return ""
    header, *rows = [[_plain(cell) for cell in row] for row in cells]
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *rows])


def _plain(text: str) -> str:
    """Escape what Markdown or HTML would take for a command."""
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(text, quote=False))


def as_latex(tables: Sequence[Table]) -> str:
    """Return a `tabular` for each table, with the rules of the package booktabs, and its words as
    comments."""
    made = []
    for part in printed_parts(tables):
        if not part.cells:
            made.append("\n".join(f"% {line}" for line in (part.title, *part.sentences)))
            continue
        header, *rows = [" & ".join(map(_escaped, line)) + r" \\" for line in part.cells]
        columns = "l" + "r" * (len(part.cells[0]) - 1)
        made.append("\n".join([
            f"% {part.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", header,
            r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
            *(f"% {sentence}" for sentence in part.sentences),
        ]))  # fmt: skip
    return "\n\n".join([*made, f"% {_EXPLAINED}" if made else f"% {_EMPTY}"])


def _escaped(cell: str) -> str:
    names = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return _LATEX.sub(lambda match: names.get(match[0], "\\" + match[0]), cell)


def _wrapped(sentence: str) -> list[str]:
    """Return a sentence in lines; a label that is longer than a line stays whole."""
    return textwrap.wrap(
        sentence, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def printed_parts(tables: Sequence[Table]) -> list[Part]:
    """Return all tables, each followed by its differences, then by more figures."""
    printed, groups = [], gains(tables)
    for table, group in zip(tables, groups, strict=True):
        words = [
            *table.cautions,
            *words_on_seeds(table),
            *words_on_folds(table),
            *words_on_splits(table),
            *words_on_test_set(table),
            *words_on_searches(table),
            *one_class_words(table),
            *mixture_words(table),
        ]
        printed.append(Part(table.title, _cells(table), tuple(words)))
        if group:
            words = [verdict(gain) for gain in group]
            if group is [each for each in groups if each][-1]:  # once, below the last of them
                words += caveats(gain for each in groups for gain in each)
            title = f"{table.title}: difference, paired by seed"
            printed.append(Part(title, _difference_cells(group), tuple(words)))
            printed += _image_part(table, group)
    return [*printed, *_figure_parts(tables)]


def _cells(table: Table) -> list[list[str]]:
    """Return the header and rows as text; with columns of the reference where a row has one."""
    metric = table.rows[0].metric
    lines = [["label", f"{metric} (%)" if in_percent(metric) else metric, _INTERVAL, "n"]]
    for row in table.rows:
        lines.append([row.label, shown(row), interval_text(metric, row.interval), str(row.n)])
    if any(row.reference is not None for row in table.rows):
        lines[0] += ["reference", "difference"]
        for line, row in zip(lines[1:], table.rows, strict=True):
            line += [number(metric, row.reference), number(metric, row.difference, "+")]
    return lines


def _difference_cells(group: Sequence[Gain]) -> list[list[str]]:
    metric = group[0].difference.metric
    lines = [["labels", "points" if in_percent(metric) else metric, _INTERVAL, "p", "n"]]
    for gain in group:
        difference = gain.difference
        labels = f"{difference.first.label} - {difference.second.label}"
        interval = interval_text(metric, difference.interval, "+")
        mean, p = _mean(difference, metric, "+"), p_text(gain.test.p)
        lines.append([labels, mean, interval, p, str(difference.n)])
    return lines


def _image_part(table: Table, group: Sequence[Gain]) -> list[Part]:
    """Return the tests over images of a table's differences, if there are any."""
    metric, words = table.rows[0].metric, tuple(image_words(group))
    lines = [["labels", "points", _INTERVAL, "p", "images", "pairs"]]
    for difference in (gain.difference for gain in group):
        if (test := difference.images) is not None:
            labels = f"{difference.first.label} - {difference.second.label}"
            interval = interval_text(metric, test.interval, "+")
            counts = [str(test.images), str(len(test.seeds))]
            mean = number(metric, test.mean, "+")
            lines.append([labels, mean, interval, p_text(test.p), *counts])
    if len(lines) == 1 and not words:
        return []
    title = f"{table.title}: these trained models, compared over test images"
    return [Part(title, lines if len(lines) > 1 else [], words)]


def _figure_parts(tables: Iterable[Table]) -> Iterator[Part]:
    """Yield the figures that a study asks for beside the compared one, and of mean IoU the IoU of
    each class: a line per figure and label. A class without pixels in the split has no line."""
    for table in tables:
        split = table.rows[0].metric.partition("/")[0]
        of_classes = metric_of(table.rows[0].metric) is METRICS["miou"]
        if of_classes and (rows := table.rows_of(METRICS["iou"].name)):
            title = f"{table.title}: {split} IoU of each class (%)"
            yield Part(title, _figure_cells(rows, "class", f"{split}/iou/"))
        if rows := [row for figure in table.figures for row in table.rows_of(figure)]:
            words = () if any(row.runs for row in rows) else (_NO_PREDICTIONS,)
            title = f"{table.title}: more figures of the {split} (%)"
            yield Part(title, _figure_cells(rows, "figure", f"{split}/"), words)


def _figure_cells(rows: Sequence[Row], header: str, prefix: str) -> list[list[str]]:
    lines = [[header, "label", "mean", _INTERVAL, "n"]]
    for row in rows:
        interval = interval_text(row.metric, row.interval)
        lines.append([row.metric.removeprefix(prefix), row.label, _mean(row, row.metric), interval,
                      str(row.n)])  # fmt: skip
    return lines


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return the cells as lines: the first column aligned to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return "\n".join("  ".join(row) for row in rows)
