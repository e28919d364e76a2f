"""Writes figures, intervals and p-values as people read them."""

from collections.abc import Sequence

from orchestrator.statistics.intervals import Interval
from trainables.metrics import in_percent

_LISTED = 8  # names that a text lists; of more it says "and 3 more"


def number(metric: str, value: float | None, sign: str = "") -> str:
    """Return the figure of a metric without its unit; `-` where it is missing. sign: `+` to write
    it."""
    if value is None:
        return "-"
    if in_percent(metric):
        return f"{100 * value:{sign}z.2f}"
    return f"{value:{sign}z#.4g}".rstrip(".")


def interval_text(metric: str, interval: Interval | None, sign: str = "") -> str:
    """Return both ends of an interval, such as `38.08 to 50.16`; `-` where there is none."""
    if interval is None:
        return "-"
    return f"{number(metric, interval.low, sign)} to {number(metric, interval.high, sign)}"


def p_text(p: float | None) -> str:
    """Return a p-value with two digits; `-` where it is missing."""
    if p is None:
        return "-"
    if p < 0.001:
        return "<0.001"
    return f"{p:.2g}" if p < 0.995 else "1"


def duration(seconds: float) -> str:
    """Return a time as people say it: `40 s`, `12 min`, `3 h 10 min`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def listed(names: Sequence[str]) -> str:
    """Return names with commas; of more than eight the first ones, and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
