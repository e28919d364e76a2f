"""Follows a submitted study until its job ends: one row per Run in a live table on a terminal,
else one line per change. Following changes nothing, so it can stop and start again at any time.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import NamedTuple

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.cli.console import Column, FittedTable, Row, shortened
from orchestrator.driver.followed import Look, News, Told, epochs_done, time_left
from orchestrator.execution.ray_jobs import Jobs
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import number
from orchestrator.services.record import ServiceError
from orchestrator.storage.home import Home
from orchestrator.storage.record_shapes import current_progress
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import answer_page
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import RunState, SearchState, Submission
from orchestrator.tracking.tags import Kind, Tag
from trainables.metrics import KNN, LOSS, in_percent, metric_of

_PERIOD_SECONDS = 2.0  # between two looks at MLflow
_SILENCE_SECONDS = 20.0  # a cluster that does not answer for so long is taken for dead
_ROWS = 40  # more would not fit a terminal: finished and waiting Runs are only counted
_STAGE_LETTERS = 20  # of a stage that another one waits for
_FEWEST = 5  # rows of single Runs beside those of stages, however many stages there are
_STYLES = {State.FINISHED: "green", State.FAILED: "red", State.KILLED: "red", State.RUNNING: "bold"}
_COLUMNS = (
    Column("Run"),
    Column("state"),
    Column("epoch", right=True),
    Column("metric"),
    Column("time left", right=True, rank=1),
    Column("loss", right=True, rank=2),
    Column("img/s", right=True, rank=3),
)
_DETAILS = (
    Column("weights", rank=4),
    Column("key", rank=5),
    Column("MLflow run", rank=6),
)


def follow(
    jobs: Jobs, tracker: Tracker, study: str, job_id: str, store: Store, console: Console
) -> Submission | None:
    """Show progress until the job ends. Returns the submission, or None if it never opened one.

    store: of the study's home, which knows how long finished Runs took. Raises ServiceError when
    the cluster stops answering.
    """
    printed: dict[str, tuple[object, ...]] = {}
    announced = False  # the address of its page
    # beside the store, in the home
    news = News(Told(Home(store.root.parent).events(job_id)))
    look = Look(tracker, study, job_id, news)
    live = Live(console=console, refresh_per_second=4, transient=False)
    # a notebook gets lines: there, Live shows nothing and asks for a package at each step
    with nullcontext() if console.is_jupyter else live:
        while True:
            ended = not _is_alive(jobs, job_id)
            submission = look.last() if ended else look.now()
            if submission is not None and not announced:
                where = answer_page(tracker.uri, submission.tracked)
                console.print(where, soft_wrap=True, markup=False, highlight=False)
                announced = True
            _print_news(news.read(), console)
            if submission is not None and console.is_terminal:
                left = "" if ended else time_left(submission, store)
                table = progress_table(submission.runs, submission.searches, left=left)
                last = [Text(shortened(line, console.width), "yellow") for line in news.last]
                live.update(Group(table, *last))
            elif submission is not None:
                if _print_changes(submission.runs, printed, console) and not ended:
                    _print_time_left(time_left(submission, store), printed, console)
                _print_searches(submission.searches, printed, console)
            if ended:
                return submission
            time.sleep(_PERIOD_SECONDS)


def _print_news(lines: Iterable[str], console: Console) -> None:
    """Print what the driver tells; on a terminal it stands below the table."""
    if not console.is_terminal:
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def _is_alive(jobs: Jobs, job_id: str) -> bool:
    """Return whether the job runs. Asks a busy cluster again for 20 seconds, then raises
    ServiceError."""
    deadline = time.monotonic() + _SILENCE_SECONDS
    while True:
        try:
            return jobs.alive(job_id)
        except ServiceError as error:
            if time.monotonic() > deadline:
                raise ServiceError(f"{error}\nsubmit the study again to go on") from error
            time.sleep(_PERIOD_SECONDS)


def progress_table(
    runs: Iterable[RunState],
    searches: Iterable[SearchState] = (),
    details: bool = False,
    left: str = "",
) -> FittedTable:
    """Return a row for each Run and each search.

    details: every column and every reason in full. Without, of more than 40 Runs those that wait
    or have finished are only counted, in the caption. left: how long all of them still take, for
    the caption.
    """
    runs = list(runs)
    shown, caption = runs, ""
    if len(runs) > _ROWS and not details:
        shown = [item for item in runs if item.state not in (State.PENDING, State.FINISHED)]
        shown = shown[: max(_FEWEST, _ROWS - len({item.run.stage for item in runs}))]
        counts = Counter(item.state for item in runs)
        caption = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    caption = "; ".join(filter(None, [caption, left]))
    columns = [*_COLUMNS, *(_DETAILS if details else ())]
    rows = stage_rows(runs, len(columns)) if len(shown) < len(runs) else []
    by_key = {item.run.key: item for item in runs}
    some_run = any(item.state == State.RUNNING for item in runs)
    for item in shown:
        run_cells = cells(item)
        if some_run and item.state == State.PENDING:
            run_cells = run_cells._replace(state=_waits_for(by_key.get(item.run.parent or "")))
        more = _details(item) if details else ()
        style = _STYLES.get(item.state, "dim")
        rows.append(Row((*run_cells[:-1], *more), style, run_cells.note))
    for search in searches:
        search_row = search_cells(search)
        more = ("",) * (len(columns) - len(_COLUMNS))
        style = _STYLES.get(search.state, "dim")
        rows.append(Row((*search_row[:-1], *more), style, search_row.note))
    return FittedTable(columns, rows, details, caption)


def _waits_for(parent: RunState | None) -> str:
    """Return what a pending Run waits for while others run. parent: whose weights it starts from,
    where it has one in this study. What else it waits for the driver tells."""
    if parent is not None and parent.state != State.FINISHED:
        return f"waits for {shortened(parent.run.stage, _STAGE_LETTERS)}"
    return "waits for room"


def stage_rows(runs: Sequence[RunState], columns: int) -> list[Row]:
    """Return a row for each stage of a large study: how many of its Runs are done, run, failed or
    wait, and its best figure so far. columns: how many cells a row has."""
    stages: dict[str, list[RunState]] = {}
    for item in runs:
        stages.setdefault(item.run.stage, []).append(item)
    rows = []
    for stage, items in list(stages.items())[:_ROWS]:
        counts = Counter(item.state for item in items)
        words = {State.RUNNING: "running", State.FAILED: "failed", State.KILLED: "killed",
                 State.BLOCKED: "blocked"}  # fmt: skip
        parts = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
        done = counts[State.FINISHED]
        state = ", ".join(parts) or ("done" if done == len(items) else "waiting")
        cells_ = (f"{stage}: Runs", state, f"{done}/{len(items)}", _best_of(items))
        style = "red" if any(counts[bad] for bad in (State.FAILED, State.KILLED)) else "bold"
        rows.append(Row((*cells_, *[""] * (columns - len(cells_))), style))
    return rows


def _best_of(items: Sequence[RunState]) -> str:
    """Return the best figure of a stage's Runs, by the metric that chooses their checkpoints."""
    name = items[0].run.select
    values = [item.tracked.metrics.get(name, math.nan) for item in items if item.tracked]
    values = list(filter(math.isfinite, values))
    if not values or name == "epoch":
        return ""
    best = max(values) if metric_of(name).mode == "max" else min(values)
    return f"best {name} {best:.3f}"


def finished_table(count: int) -> FittedTable:
    """Return the table of so many Runs that have all finished, more than it would show."""
    return FittedTable(_COLUMNS, [], caption=f"{count} {State.FINISHED}")


class Cells(NamedTuple):
    """Holds what a row shows of a Run or a search, in the order of _COLUMNS, then the note."""

    name: str
    state: str
    epoch: str  # of a producer, images; of a search, trials
    metric: str
    left: str
    loss: str = ""
    speed: str = ""
    note: str = ""  # why it failed or waits, and warnings


def cells(item: RunState) -> Cells:
    """Return what a row shows of a Run."""
    progress, metrics = item.progress, item.tracked.metrics if item.tracked else {}
    # the last epochs of a short Run are in MLflow before they are told as progress
    newer = float(progress.get("done", 0)) >= epochs_done(item)
    told, logged = progress.get("loss"), metrics.get(LOSS)
    loss = (told or logged) if newer else (logged or told)
    running = item.state == State.RUNNING
    left = progress.get("seconds_left") if running else None
    speed = progress.get("images_per_s") if running else None
    reused = item.tracked is not None and item.tracked.tags.get(Tag.KIND) == Kind.REUSED
    return Cells(
        name=item.run.name,
        state="reused" if reused else item.state.lower(),
        epoch=f"{epochs_done(item)}/{_epochs_in_all(item)}",
        metric=_main_metric(item, metrics),
        left=str(timedelta(seconds=round(left))) if left is not None else "",
        loss=f"{loss:.3f}" if loss else "",
        speed=(f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}") if speed else "",
        note=_note(item),
    )


def _main_metric(item: RunState, metrics: Mapping[str, float]) -> str:
    """Return the metric that chooses the checkpoint, of a finished Run its test figure; else
    kNN."""
    name = item.run.select
    if item.state == State.FINISHED:
        name = f"test/{name.partition('/')[2]}"
    shown = next((candidate for candidate in (name, KNN) if candidate in metrics), None)
    return f"{shown} {metrics[shown]:.3f}" if shown else ""


def _note(item: RunState) -> str:
    """Return the reason of a Run that failed, was stopped or is blocked, and its warning; a line
    each."""
    ended = item.state not in (State.RUNNING, State.FINISHED, State.PENDING)
    return "\n".join(filter(None, [item.reason if ended else "", item.fact(Tag.WARNING)]))


def _details(item: RunState) -> tuple[str, ...]:
    """Return the cells of _DETAILS."""
    return (item.fact(Tag.WEIGHT_TRANSFER), item.run.key, item.run_id or "")


def search_cells(item: SearchState) -> Cells:
    """Return what a row shows of a search, whose epochs are its trials."""
    words = {State.RUNNING: "running", "STOPPED": "stopped early", State.FAILED: "failed"}
    counts = [
        f"{item.counts[state]} {word}" for state, word in words.items() if item.counts.get(state)
    ]
    return Cells(
        name=item.name,
        state=item.state.lower(),
        epoch=f"{item.ended}/{item.spec['count']}",
        metric=f"{item.spec['metric']} {item.best['figure']:.3f}" if item.best else "",
        left="",
        note="\n".join(filter(None, [", ".join(counts), item.reason])),
    )


def best_trial(item: SearchState) -> str:
    """Return one line about the best trial of a search; empty where no trial has a figure yet."""
    if not item.best:
        return ""
    metric = item.spec["metric"]
    figure = number(metric, item.best["figure"]) + " %" * in_percent(metric)
    early = item.counts.get("STOPPED", 0)
    trials = f"{item.ended} trials" + (f", {early} stopped early" if early else "")
    return f"{item.name}: best {metric} {figure} of {trials}: {item.best['label']}"


def _epochs_in_all(item: RunState) -> str:
    """Return the epochs that a Run is to train, or images of a producer; `?` until it has counted
    them."""
    if item.run.artifacts:
        return item.fact(Tag.IMAGES) or str(current_progress(item.progress).get("total") or "?")
    return str(item.run.config["epochs"])


def _print_searches(
    searches: Iterable[SearchState], printed: dict[str, tuple[object, ...]], console: Console
) -> None:
    """Print a line for every search of which a trial has ended since the last call."""
    for item in searches:
        ended = sorted(pair for pair in item.counts.items() if pair[0] != State.RUNNING)
        state = (item.state, *ended)
        if item.state != State.PENDING and printed.get(item.name) != state:
            printed[item.name] = state
            row = search_cells(item)
            _print_line(console, row, [f"trial {row.epoch}", row.metric])


def _print_time_left(left: str, printed: dict[str, tuple[object, ...]], console: Console) -> None:
    """Print how long the study still takes, where that is known and not what was printed last."""
    if left and printed.get("") != (left,):
        printed[""] = (left,)
        console.print(left, highlight=False, markup=False)


def _print_changes(
    runs: Iterable[RunState], printed: dict[str, tuple[object, ...]], console: Console
) -> bool:
    """Print a line for every Run whose state or epoch has changed since the last call. Returns
    whether one has finished."""
    finished = False
    for item in runs:
        state = (item.state, epochs_done(item))
        name = f"{item.run.key} {item.run.label}"
        if item.state != State.PENDING and printed.get(name) != state:
            printed[name] = state
            finished |= item.state == State.FINISHED
            row = cells(item)
            unit = "images" if item.run.artifacts else "epoch"
            loss = f"loss {row.loss}" if row.loss else ""
            speed = f"{row.speed} images/s" if row.speed else ""
            left = f"{row.left} left" if row.left else ""
            parts = [f"{unit} {row.epoch}", loss, row.metric, speed, left]
            _print_line(console, row, parts)
    return finished


def _print_line(console: Console, row: Cells, parts: Iterable[str]) -> None:
    """Print `name: state: note, part, part` without the parts that are empty."""
    state = ": ".join([row.name, row.state, *row.note.splitlines()])
    line = ", ".join(part for part in (state, *parts) if part)
    console.print(line, soft_wrap=True, highlight=False, markup=False)
