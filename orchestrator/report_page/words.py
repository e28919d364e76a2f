"""Says in a few sentences what a submission has found, and how sure that is."""

from collections.abc import Sequence
from statistics import fmean

from orchestrator.reporting.comparison import Row, Table
from orchestrator.reporting.numbers import interval_text, number
from orchestrator.reporting.sample import finite
from orchestrator.reporting.verdicts import Gain, gains, verdict
from trainables.metrics import in_percent, metric_of

_NAMED = 2  # differences that the answer states; of more it counts the rest


def answer(tables: Sequence[Table]) -> tuple[str, ...]:
    """Return what was found, in one or two sentences: established differences first, else the
    largest ones; without differences, the best row of each table."""
    found = [gain for group in gains(tables) for gain in group]
    said = [gain for gain in found if gain.test.n]
    if not said:
        rows = [_best(table) for table in tables]
        best = tuple(filter(None, rows))[:_NAMED]
        return best or ("There is no answer yet: no compared Run has finished.",)
    established = [gain for gain in said if gain.established]
    sentences = [_sentence(gain) for gain in (established or said)[:_NAMED]]
    rest = len(said) - len(sentences)
    if rest and established:
        more = len(established) - len(sentences)
        sentences.append(
            f"Of {len(said)} differences {len(established)} are established"
            + (f", {more} more in the tables below." if more > 0 else "; the others are not.")
        )
    elif rest:
        sentences.append(f"None of the {len(said)} differences is established.")
    return tuple(sentences)


def _sentence(gain: Gain) -> str:
    """Return one sentence for readers who know no p-values."""
    difference, metric = gain.difference, gain.difference.metric
    better = {"first": (difference.first, difference.second),
              "second": (difference.second, difference.first)}  # fmt: skip
    if gain.better is None or gain.test.mean is None:
        return verdict(gain)
    one, other = better[gain.better]
    unit = "percentage points" if in_percent(metric) else metric_of(metric).unit
    by = f"{number(metric, abs(gain.test.mean))} {unit}".rstrip()
    means = [_mean_over(row, difference.seeds) for row in (one, other)]
    figure = f"{_name(metric)} {_shown(metric, means[0])} against {_shown(metric, means[1])}"
    if gain.established:
        between = interval_text(metric, gain.test.interval, "+") if gain.test.interval else ""
        name = f"{difference.first.label} minus {difference.second.label}"
        sure = f"; with {difference.repeats}, {name} lies from {between}" if between else ""
        return f"{one.label} is better than {other.label} by {by} ({figure}): established{sure}."
    return (
        f"{one.label} is ahead of {other.label} by {by} ({figure}), but this is not established: "
        f"{_doubt(gain)}."
    )


def _mean_over(row: Row, seeds: Sequence[int]) -> float | None:
    """Return the mean of a row over the seeds that a difference pairs."""
    return finite(fmean(row.by_seed[seed] for seed in seeds))


def _doubt(gain: Gain) -> str:
    test, metric = gain.test, gain.difference.metric
    if test.n == 1:
        return "it was trained with one seed only"
    if test.interval is None:
        return f"{gain.difference.repeats} do not show it"
    between = interval_text(metric, test.interval, "+")
    name = f"{gain.difference.first.label} minus {gain.difference.second.label}"
    if test.interval.low <= 0 <= test.interval.high:
        unit = " points" if in_percent(metric) else ""
        return (
            f"with {gain.difference.repeats}, the 95 % interval of {name} is {between}{unit}, "
            "which holds both a gain and a loss"
        )
    over = gain.difference.repeats
    return f"with {over} it holds alone ({name} {between}), but not among {gain.family}"


def _best(table: Table) -> str:
    """Return which row of a table has the best mean; empty where none has one."""
    rows = [row for row in table.rows if finite(row.mean) is not None]
    if not rows:
        return ""
    metric = rows[0].metric
    sign = 1 if metric_of(metric).mode == "max" else -1
    rows.sort(key=lambda row: -sign * float(row.mean or 0.0))
    best = rows[0]
    if len(rows) == 1:
        return f"{best.label} reaches {_name(metric)} {_figure(best)} ({table.title})."
    return (
        f"{best.label} has the best mean, {_name(metric)} {_figure(best)}, before "
        f"{rows[1].label} with {_figure(rows[1])} ({table.title}); the study tests no difference."
    )


def _name(metric: str) -> str:
    split, _, _ = metric.partition("/")
    return f"{split} {metric_of(metric).label}".strip()


def _figure(row: Row) -> str:
    return _shown(row.metric, finite(row.mean))


def _shown(metric: str, value: float | None) -> str:
    return f"{number(metric, value)}{' %' if in_percent(metric) else ''}"


def sureness(tables: Sequence[Table], note: str) -> tuple[str, ...]:
    """Return how sure the answer is: seeds, what an interval means, Runs that are missing. note: as
    `comparison.unfinished` returns it."""
    counts = sorted({row.n for table in tables for row in table.rows if row.n})
    said = []
    if counts == [1]:
        said.append(
            "Each configuration was trained once (one seed). Another seed gives another figure; by "
            "how much is not known."
        )
    elif counts:
        many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        said.append(
            f"Each configuration was trained with {many} seeds (random numbers that decide "
            f"{_drawn(tables)}). A 95 % interval is the range of means that fit these results; the "
            "wider it is, the less is known."
        )
    if any(group for group in gains(tables)):
        said.append(
            "A difference is called established where its p-value is below 0.05; of several "
            "differences, after a correction for their number. Not established does not mean equal."
        )
    if note:
        said.append(f"Not counted: {note}.")
    return tuple(said)


def _drawn(tables: Sequence[Table]) -> str:
    """Return what the seeds decide: `first weights and order of images`."""
    runs = [run for table in tables for row in table.rows for run in row.runs]
    names = {"init": "first weights", "order": "order of images"}
    said = [name for what, name in names.items() if any(what in run.vary for run in runs)]
    if any(len(row.tested_folds) > 1 for table in tables for row in table.rows):
        said.append("which fold of the images is the test")
    if any(row.splits > 1 for table in tables for row in table.rows):
        said.append("how the images are cut into parts")
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
