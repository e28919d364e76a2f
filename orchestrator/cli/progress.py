"""Follows a submitted study until its job ends: one row per Run in a live table on a terminal,
else one line per change. Following changes nothing, so it can stop and start again at any time.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import NamedTuple

from rich.console import Console
from rich.live import Live

from orchestrator.cli.console import Column, FittedTable, Row
from orchestrator.execution.ray_jobs import Jobs
from orchestrator.execution.services import ServiceError
from orchestrator.planning.estimates import Task, epochs_of, kind_of, known_times, last_end
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import duration, number
from orchestrator.storage.record_shapes import current_progress
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackingError, answer_page
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import RunState, SearchState, Submission, load
from orchestrator.tracking.tags import Kind, Tag
from trainables.metrics import KNN, LOSS, in_percent

_PERIOD_SECONDS = 2.0  # between two looks at MLflow
_SILENCE_SECONDS = 20.0  # a cluster that does not answer for so long is taken for dead
_ROWS = 40  # more would not fit a terminal: finished and waiting Runs are only counted
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
    submission: Submission | None = None
    announced = False  # the address of its page
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            ended = not _is_alive(jobs, job_id)
            submission = _current(tracker, study, job_id, submission)
            if submission is not None and not announced:
                where = answer_page(tracker.uri, submission.tracked)
                console.print(where, soft_wrap=True, markup=False, highlight=False)
                announced = True
            if submission is not None and console.is_terminal:
                left = "" if ended else time_left(submission, store)
                live.update(progress_table(submission.runs, submission.searches, left=left))
            elif submission is not None:
                if _print_changes(submission.runs, printed, console) and not ended:
                    _print_time_left(time_left(submission, store), printed, console)
                _print_searches(submission.searches, printed, console)
            if ended:
                return submission
            time.sleep(_PERIOD_SECONDS)


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


def _current(
    tracker: Tracker, study: str, job_id: str, before: Submission | None
) -> Submission | None:
    """Return the job's submission as MLflow has it now; None until the driver has opened it.

    before: what the last call returned, which is returned again while MLflow does not answer.
    """
    try:
        tracked = tracker.reader.submission_of(study, job_id)
        if tracked is None:
            return before
        version = tracked.tags.get(Tag.PLAN_VERSION)
        same = before is not None and before.tracked.tags.get(Tag.PLAN_VERSION) == version
        plan = before.plan if before and same else tracker.reader.plan(tracked)
        return load(tracker.reader, tracked, plan)
    except TrackingError:
        return before


def time_left(submission: Submission, store: Store) -> str:
    """Return how long the submission still takes; empty where that is not known yet: a Run waits
    of whose kind none has run, or a search has not ended, whose Runs are not known."""
    slots = int(submission.tracked.tags.get(Tag.AT_ONCE, 0))
    ended = [item.run for item in submission.runs if item.state == State.FINISHED]
    unfinished = [item for item in submission.runs if item.state in (State.RUNNING, State.PENDING)]
    if not slots or any(search.state != State.FINISHED for search in submission.searches):
        return ""
    times = known_times(store, ended, [item.run for item in unfinished])
    tasks = []
    for item in unfinished:
        left = item.progress.get("seconds_left") if item.state == State.RUNNING else None
        if left is not None:
            tasks.append(Task(item.run.key, item.run.parent, left, running=True))
            if (epochs := epochs_of(item.run) - item.progress.get("done", 0.0)) > 0:
                times.paces.setdefault(kind_of(item.run), left / epochs)
    known = {task.key for task in tasks}
    for item in unfinished:
        if item.run.key in known:
            continue
        seconds = times.seconds(item.run, 0 if item.run.artifacts else epochs_done(item))
        if seconds is None:
            return ""
        tasks.append(Task(item.run.key, item.run.parent, seconds, item.state == State.RUNNING))
    return f"about {duration(last_end(tasks, slots))} left" if tasks else ""


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
        shown = [item for item in runs if item.state not in (State.PENDING, State.FINISHED)][:_ROWS]
        counts = Counter(item.state for item in runs)
        caption = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    caption = "; ".join(filter(None, [caption, left]))
    columns = [*_COLUMNS, *(_DETAILS if details else ())]
    rows = []
    for item in shown:
        run_cells = cells(item)
        more = _details(item) if details else ()
        style = _STYLES.get(item.state, "dim")
        rows.append(Row((*run_cells[:-1], *more), style, run_cells.note))
    for search in searches:
        search_row = search_cells(search)
        more = ("",) * (len(columns) - len(_COLUMNS))
        style = _STYLES.get(search.state, "dim")
        rows.append(Row((*search_row[:-1], *more), style, search_row.note))
    return FittedTable(columns, rows, details, caption)


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
    loss = progress.get("loss") or metrics.get(LOSS)
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


def epochs_done(item: RunState) -> int:
    """Return the epochs that a Run has finished, or images that a producer has."""
    if item.run.artifacts:
        return int(item.fact(Tag.IMAGES) or current_progress(item.progress).get("done", 0))
    if item.tracked is not None and Tag.EPOCHS in item.tracked.tags:
        return int(item.tracked.tags[Tag.EPOCHS])
    return int(current_progress(item.progress).get("done", 0))


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
