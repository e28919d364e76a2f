"""Draws the charts of a report as SVG of 360 px width, which a phone shows at full size.

Colors come from the page's style, light or dark. No chart needs them: every line has dashes and a
mark of its own, and every mark is named.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from orchestrator.drawing.style import axis_label, spans_decades
from orchestrator.report_page.page import Chart
from orchestrator.reporting.comparison import PairedDifference, Row, Table
from orchestrator.reporting.numbers import interval_text, number
from orchestrator.reporting.sample import finite
from trainables.metrics import in_percent, metric_of

if TYPE_CHECKING:  # it loads matplotlib
    from orchestrator.plots.curves import Line, Panel

WIDTH = 360
_LEFT, _RIGHT = 14, 346  # px of the axis of a chart of intervals
_MOST_ROWS, _MOST_LINES, _MOST_SEEDS = 40, 8, 12
_MOST_TICKS = 8
_LETTERS = 46  # of a label in a chart
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_MARKS = ("circle", "square", "triangle", "diamond", "cross")


def intervals_chart(table: Table) -> Chart | None:
    """Return the mean of each row with its 95 % interval, its seeds and its reference; None where
    no row has a value."""
    rows = [row for row in table.rows if finite(row.mean) is not None][:_MOST_ROWS]
    values = [value for row in rows for value in _values_of(row)]
    if not values:
        return None
    metric = rows[0].metric
    ticks = _ticks(min(values), max(values))
    x = _scale(ticks, _LEFT, _RIGHT)
    parts, height = [], 34 * len(rows) + 48
    parts += _vertical_axis_lines(metric, ticks, x, height - 44)
    for place, row in enumerate(rows):
        parts += _interval_row(row, x, 14 + 34 * place)
    legend = "◆ mean\u2003├─┤ 95 % interval\u2003○ one seed"
    if any(row.reference is not None for row in rows):
        legend += "\u2003× reference"
    parts.append(_text(_LEFT, height - 4, legend, "small"))
    about = "; ".join(_interval_words(row) for row in rows)
    more = len(table.rows) - len(rows)
    title = f"{table.title}: {axis_label(metric)}" + (f" ({more} rows not drawn)" if more else "")
    return Chart(title, about, _svg(height, parts))


def _values_of(row: Row) -> list[float]:
    ends = row.interval or ()
    values = (*row.values, *ends, *([row.reference] if row.reference is not None else []))
    return [value for value in values if math.isfinite(value)]


def _interval_words(row: Row) -> str:
    between = f", 95 % interval {interval_text(row.metric, row.interval)}" if row.interval else ""
    return f"{row.label} {number(row.metric, row.mean)}{between}"


def _interval_row(row: Row, x: Callable[[float], float], y: float) -> list[str]:
    """Draw a row: its label above, its marks below. y: px of the label's baseline."""
    mean, line = finite(row.mean), y + 11
    parts = [_text(_LEFT, y, _short(row.label), "label"),
             _text(_RIGHT, y, number(row.metric, mean), "value", "end")]  # fmt: skip
    if row.interval is not None:
        low, high = x(row.interval.low), x(row.interval.high)
        parts.append(_path(f"M{low:.1f} {line}H{high:.1f}M{low:.1f} {line - 5}v10"
                           f"M{high:.1f} {line - 5}v10", "line c0"))  # fmt: skip
    for value in filter(math.isfinite, row.values):
        parts.append(f'<circle class="hollow" cx="{x(value):.1f}" cy="{line}" r="3"/>')
    if row.reference is not None and math.isfinite(row.reference):
        parts.append(_mark("cross", x(row.reference), line, "c1", 5))
    if mean is not None:
        parts.append(_mark("diamond", x(mean), line, "c0", 5))
    return parts


def _vertical_axis_lines(
    metric: str, ticks: Sequence[float], x: Callable[[float], float], bottom: float
) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(_path(f"M{x(tick):.1f} 2V{bottom}", "grid"))
        anchor = "start" if tick == ticks[0] else "end" if tick == ticks[-1] else "middle"
        parts.append(_text(x(tick), bottom + 14, _tick(metric, tick), "small", anchor))
    return parts


def pairs_chart(difference: PairedDifference) -> Chart | None:
    """Return a line for each seed from the figure of the second label to that of the first; None
    where they have no seed in common."""
    first, second = difference.first, difference.second
    pairs = [
        (seed, second.by_seed[seed], first.by_seed[seed])
        for seed in difference.seeds
        if math.isfinite(second.by_seed[seed]) and math.isfinite(first.by_seed[seed])
    ]
    if not pairs:
        return None
    metric, height = first.metric, 262
    ticks = _ticks(*_ends([value for _, *both in pairs for value in both]))
    y = _scale(ticks, 200, 14)
    parts = _horizontal_axis_lines(metric, ticks, y, 300)
    upward = metric_of(metric).mode == "max"
    places = _apart([y(after) for _, _, after in pairs], 12)
    for (seed, before, after), place in zip(pairs, places, strict=True):
        ahead = (after > before) == upward and after != before
        dash = "" if ahead else ' stroke-dasharray="5 4"'
        line = f"M96 {y(before):.1f}L268 {y(after):.1f}"
        parts.append(f'<path class="line {"c0" if ahead else "c1"}" d="{line}"{dash}/>')
        parts.append(_mark("circle", 96, y(before), "c0" if ahead else "c1", 3.5))
        parts.append(_mark("circle", 268, y(after), "c0" if ahead else "c1", 3.5))
        if len(pairs) <= _MOST_SEEDS:
            parts.append(_path(f"M272 {y(after):.1f}L281 {place:.1f}", "grid"))
            parts.append(_text(284, place + 4, f"seed {seed}", "small"))
    parts.append(_text(96, 218, _short(second.label, 26), "label", "middle"))
    parts.append(_text(268, 218, _short(first.label, 26), "label", "middle"))
    parts.append(_text(_LEFT, 240, f"solid: {_short(first.label, 26)} is better with this seed",
                       "small"))  # fmt: skip
    parts.append(_text(_LEFT, 256, "dashed: it is not", "small"))
    better = sum((after > before) == upward and after != before for _, before, after in pairs)
    about = (
        f"{first.label} is better than {second.label} with {better} of {len(pairs)} seeds: "
        + "; ".join(
            f"seed {seed}: {number(metric, before)} to {number(metric, after)}"
            for seed, before, after in pairs
        )
    )
    title = f"{first.label} and {second.label}, seed by seed: {axis_label(metric)}"
    return Chart(title, about, _svg(height, parts))


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Move places (px) so far that no two are nearer than `gap`; their order stays."""
    moved = [0.0] * len(places)
    last = -math.inf
    for number_ in sorted(range(len(places)), key=lambda place: places[place]):
        last = moved[number_] = max(places[number_], last + gap)
    return moved


def curves_chart(panel: "Panel") -> Chart | None:
    """Return the metric over epochs: a line for each label, a band from its lowest to its highest
    seed; None where no label has a value."""
    lines = [line for line in panel.lines if line.epochs]
    left_out, lines = len(lines) - _MOST_LINES, _best_lines(lines, panel.metric)
    values = [float(v) for line in lines for v in line.values.ravel() if math.isfinite(v)]
    if not values:
        return None
    epochs = [epoch for line in lines for epoch in line.epochs]
    logarithmic = spans_decades(values) and not in_percent(panel.metric)
    ticks = _log_ticks(*_ends(values)) if logarithmic else _ticks(*_ends(values))
    first, last = min(epochs), max(epochs)
    span = (first, last) if last > first else (first - 1, first + 1)
    x, y = _scale(span, 52, 342), (_log_scale if logarithmic else _scale)(ticks, 180, 10)
    parts = _horizontal_axis_lines(panel.metric, ticks, y, 342)
    for epoch in sorted({first, (first + last) // 2, last}):
        parts.append(_text(x(epoch), 196, str(epoch), "small", "middle"))
    parts.append(_text(197, 210, "epoch", "small", "middle"))
    for place, line in enumerate(lines):
        parts += _curve(line, place, x, y)
        parts += _legend_line(line.label, place, 228 + 17 * place)
    about = "; ".join(_curve_words(line, panel.metric) for line in lines)
    more = f" (the best {_MOST_LINES}; {left_out} are not drawn)" if left_out > 0 else ""
    scale = ", logarithmic axis" if logarithmic else ""
    title = f"{panel.title}: {axis_label(panel.metric)}{scale}{more}"
    return Chart(title, about, _svg(222 + 17 * len(lines), parts))


def _best_lines(lines: "Sequence[Line]", metric: str) -> "list[Line]":
    """Return the lines of the best last values, no more than a reader can tell apart, in the order
    of the table."""
    sign = -1 if metric_of(metric).mode == "max" else 1

    def last(line: "Line") -> float:
        value = _means(line)[-1]
        return sign * value if math.isfinite(value) else math.inf

    kept = sorted(lines, key=last)[:_MOST_LINES]
    return [line for line in lines if any(line is one for one in kept)]


def _means(line: "Line") -> list[float]:
    """Return the mean over the seeds that have a value, for each epoch."""
    means = []
    for column in line.values.T.tolist():
        known = [value for value in column if math.isfinite(value)]
        means.append(sum(known) / len(known) if known else math.nan)
    return means


def _curve_words(line: "Line", metric: str) -> str:
    means = [value for value in _means(line) if math.isfinite(value)]
    if not means:
        return f"{line.label}: no finite value"
    return f"{line.label}: {number(metric, means[0])} at first, {number(metric, means[-1])} at last"


def _curve(
    line: "Line", place: int, x: Callable[[float], float], y: Callable[[float], float]
) -> list[str]:
    points = [(x(e), y(v)) for e, v in zip(line.epochs, _means(line), strict=True)
              if math.isfinite(v)]  # fmt: skip
    parts = []
    if len(line.values) > 1:
        columns = [[v for v in column if math.isfinite(v)] for column in line.values.T.tolist()]
        known = [(e, c) for e, c in zip(line.epochs, columns, strict=True) if c]
        edge = [(x(e), y(max(c))) for e, c in known] + [(x(e), y(min(c))) for e, c in known[::-1]]
        outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in edge)
        if len(known) == 1:  # a band has no width there
            (a, top), (_, bottom) = edge
            points = [(a + 14 * place, b) for a, b in points]  # bars stand side by side
            parts.append(_path(f"M{a + 14 * place:.1f} {top:.1f}V{bottom:.1f}",
                               f"line c{place % 7}"))  # fmt: skip
        else:
            parts.append(f'<polygon class="band f{place % 7}" points="{outline}"/>')
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
    parts.append(f'<path class="line c{place % 7}" d="{path}"{_dash(place)}/>')
    every = max(1, len(points) // 6)
    shown = [*points[:-1:every], points[-1]] if points else []
    parts += [_mark(_mark_of(place), a, b, f"c{place % 7}", 3.5) for a, b in shown]
    return parts


def _legend_line(label: str, place: int, y: float) -> list[str]:
    return [
        f'<path class="line c{place % 7}" d="M14 {y - 4}h34"{_dash(place)}/>',
        _mark(_mark_of(place), 31, y - 4, f"c{place % 7}", 3.5),
        _text(54, y, _short(label), "label"),
    ]


def _dash(place: int) -> str:
    dash = _DASHES[place % len(_DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _mark_of(place: int) -> str:
    return _MARKS[place % len(_MARKS)]


def _horizontal_axis_lines(
    metric: str, ticks: Sequence[float], y: Callable[[float], float], right: float
) -> list[str]:
    parts = []
    for tick in ticks:
        parts.append(_path(f"M52 {y(tick):.1f}H{right}", "grid"))
        parts.append(_text(48, y(tick) + 4, _tick(metric, tick), "small", "end"))
    return parts


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _ticks(low: float, high: float) -> list[float]:
    """Return three to six round numbers around two ends."""
    span = (high - low) or abs(high) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    count = max(1, math.ceil(high / step - 1e-9) - first)
    return [(first + number_) * step for number_ in range(count + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten around two ends above 0; of many only the powers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    all_ticks = [nice * 10.0**power for power in powers for nice in (1, 2, 5)]
    first = max(place for place, tick in enumerate(all_ticks) if tick <= low * (1 + 1e-9))
    last = min(place for place, tick in enumerate(all_ticks) if tick >= high * (1 - 1e-9))
    ticks = all_ticks[first : last + 1]
    if len(ticks) <= _MOST_TICKS:
        return ticks
    return [10.0**power for power in powers]


def _tick(metric: str, value: float) -> str:
    return f"{100 * value:.4g} %" if in_percent(metric) else f"{value:.4g}"


def _scale(ends: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    """Return a function from values to px: the first of `ends` is at `start`, the last at
    `stop`."""
    low, high = ends[0], ends[-1]
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _log_scale(ends: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    """Return a function from values above 0 to px, as `_scale` on their logarithms."""
    inner = _scale((math.log10(ends[0]), math.log10(ends[-1])), start, stop)
    return lambda value: inner(math.log10(value))


def _short(label: str, letters: int = _LETTERS) -> str:
    return label if len(label) <= letters else f"{label[: letters - 1]}…"


def _svg(height: float, parts: Iterable[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" aria-hidden="true" focusable="false">{body}</svg>'
    )


def _path(data: str, style: str) -> str:
    return f'<path class="{style}" d="{data}"/>'


def _text(x: float, y: float, text: str, style: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def _mark(kind: str, x: float, y: float, style: str, r: float) -> str:
    """Draw a mark around a point. style: class of its color; r: half of its side, in px."""
    if kind == "circle":
        return f'<circle class="mark {style}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>'
    shapes = {
        "square": f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z",
        "triangle": f"M{x:.1f} {y - r - 1:.1f}l{r + 1} {2 * r + 1}h{-2 * r - 2}z",
        "diamond": f"M{x:.1f} {y - r:.1f}l{r} {r}l{-r} {r}l{-r} {-r}z",
        "cross": f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}",
    }
    style = f"line {style}" if kind == "cross" else f"mark {style}"
    return f'<path class="{style}" d="{shapes[kind]}"/>'
