"""Watch a submitted study until its job ends: a row a Run, live on a terminal, else a line a
change. Watching changes nothing, so it can end and begin at any time."""

import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from orchestrator.execution.ray_jobs import Jobs
from orchestrator.execution.services import ServiceError
from orchestrator.reporting.tables import number
from orchestrator.storage.run_records import current_progress
from orchestrator.tracking.mlflow_client import Tracker, TrackingError
from orchestrator.tracking.run_states import RunState, SearchState, Submission, load
from trainables.metrics import in_percent

_PERIOD = 2.0
_SILENCE_SECONDS = 20.0
_ROWS = 40  # more would not fit a terminal: finished and waiting Runs are summed up
_STYLES = {"FINISHED": "green", "FAILED": "red", "KILLED": "red", "RUNNING": "bold"}


def follow(
    jobs: Jobs, tracker: Tracker, study: str, job_id: str, console: Console
) -> Submission | None:
    """Show progress until the job ends. Returns the submission, or None if it never opened one.

    Raises ServiceError when the cluster stops answering.
    """
    shown: dict[str, tuple[object, ...]] = {}
    submission: Submission | None = None
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        while True:
            ended = not _is_alive(jobs, job_id)
            submission = _look(tracker, study, job_id, submission)
            if submission is not None and console.is_terminal:
                live.update(progress_table(submission.runs, submission.searches))
            elif submission is not None:
                _print_changes(submission.runs, shown, console)
                _print_searches(submission.searches, shown, console)
            if ended:
                return submission
            time.sleep(_PERIOD)


def _is_alive(jobs: Jobs, job_id: str) -> bool:
    """Whether the job runs. A busy cluster is asked again for a while; a dead one is said."""
    deadline = time.monotonic() + _SILENCE_SECONDS
    while True:
        try:
            return jobs.alive(job_id)
        except ServiceError as error:
            if time.monotonic() > deadline:
                raise ServiceError(f"{error}\nsubmit the study again and it goes on") from error
            time.sleep(_PERIOD)


def _look(
    tracker: Tracker, study: str, job_id: str, before: Submission | None
) -> Submission | None:
    """The job's submission as it is now; None until it is open. While MLflow does not answer, what
    it said before."""
    try:
        found = tracker.submissions(study, 1)
        if not found or found[0].tags.get("job") != job_id:
            return before
        version = found[0].tags.get("plan_version")
        same = before is not None and before.tracked.tags.get("plan_version") == version
        return load(tracker, found[0], before.plan if before and same else tracker.plan(found[0]))
    except TrackingError:
        return before


def progress_table(
    runs: Iterable[RunState], searches: Iterable[SearchState] = (), weights: bool = False
) -> Table:
    """A row a Run; waiting ones only as a number when there are many; and a row a search. weights:
    with whose weights a Run started, and their fingerprint."""
    runs = list(runs)
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    for name in ("Run", "state", "epoch", "loss", "metric", "img/s", "time left"):
        side: Literal["left", "right"] = "left" if name in ("Run", "state", "metric") else "right"
        table.add_column(name, justify=side, no_wrap=name not in ("Run", "state"), overflow="fold")
    if weights:
        table.add_column("starts from")
    shown = (
        runs if len(runs) <= _ROWS else [r for r in runs if r.state not in ("PENDING", "FINISHED")]
    )
    for item in shown[:_ROWS]:
        row = (*cells(item), *([_start_of(item)] if weights else []))
        table.add_row(*map(escape, row), style=_STYLES.get(item.state, "dim"))
    for search in searches:
        style = _STYLES.get(search.state, "dim")
        table.add_row(*map(escape, search_cells(search)), *([""] if weights else []), style=style)
    if len(runs) > _ROWS:
        counts = {state: sum(r.state == state for r in runs) for state in {r.state for r in runs}}
        table.caption = ", ".join(f"{n} {state}" for state, n in sorted(counts.items()))
    return table


def cells(item: RunState) -> tuple[str, ...]:
    """label and seed, state, epoch, loss, main metric, images/s, time left."""
    progress, metrics = item.progress, item.tracked.metrics if item.tracked else {}
    select = item.run.select
    name = f"test/{select.partition('/')[2]}" if item.state == "FINISHED" else select
    name = next((each for each in (name, "val/knn_accuracy") if each in metrics), "")
    metric = f"{name} {metrics[name]:.3f}" if name else ""
    loss = progress.get("loss") or metrics.get("train/loss")
    state = item.state.lower()
    if item.tracked is not None and item.tracked.tags.get("kind") == "reused":
        state = "reused"
    if item.state not in ("RUNNING", "FINISHED", "PENDING") and item.reason:
        state = f"{state}: {item.reason}"
    if warning := item.fact("warning"):
        state = f"{state}: {warning}"
    running = item.state == "RUNNING"
    left = progress.get("seconds_left") if running else None
    speed = progress.get("images_per_s") if running else None
    return (
        item.run.name,
        state,
        f"{epochs_done(item)}/{_epochs_in_all(item)}",
        f"{loss:.3f}" if loss else "",
        metric,
        (f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}") if speed else "",
        str(timedelta(seconds=round(left))) if left is not None else "",
    )


def search_cells(item: SearchState) -> tuple[str, ...]:
    """The same for a search, whose epochs are its trials."""
    words = {"RUNNING": "running", "STOPPED": "stopped early", "FAILED": "failed"}
    parts = [
        f"{item.counts[state]} {word}" for state, word in words.items() if item.counts.get(state)
    ]
    state = item.state.lower() + (f": {item.reason}" if item.reason else "")
    if parts:
        state = f"{state} ({', '.join(parts)})"
    metric = ""
    if item.best:
        metric = f"{item.spec['metric']} {item.best['figure']:.3f}"
    return item.name, state, f"{item.ended}/{item.spec['count']}", "", metric, "", ""


def finding(item: SearchState) -> str:
    """What a search has found, in a line; empty before anything has."""
    if not item.best:
        return ""
    metric = item.spec["metric"]
    shown = number(metric, item.best["figure"]) + " %" * in_percent(metric)
    early = item.counts.get("STOPPED", 0)
    of = f"{item.ended} trials" + (f", {early} stopped early" if early else "")
    return f"{item.name}: best {metric} {shown} of {of}: {item.best['label']}"


def _epochs_in_all(item: RunState) -> str:
    if item.run.artifacts:
        return item.fact("images") or str(current_progress(item.progress).get("total") or "?")
    return str(item.run.config["epochs"])


def _start_of(item: RunState) -> str:
    """`byol epoch 4, 3f2a90c1d2e3` of "122 encoder tensors from byol epoch 4, fingerprint ..."."""
    return item.fact("weight_transfer").partition(" from ")[2].replace("fingerprint ", "")


def epochs_done(item: RunState) -> int:
    """Epochs that a Run has behind it, or images of a producer."""
    if item.run.artifacts:
        return int(item.fact("images") or current_progress(item.progress).get("done", 0))
    if item.tracked is not None and "epochs" in item.tracked.tags:
        return int(item.tracked.tags["epochs"])
    return int(current_progress(item.progress).get("done", 0))


def _print_searches(
    searches: Iterable[SearchState], shown: dict[str, tuple[object, ...]], console: Console
) -> None:
    """A line for every search of which a trial has ended."""
    for item in searches:
        now = (item.state, *(n for state, n in sorted(item.counts.items()) if state != "RUNNING"))
        if item.state != "PENDING" and shown.get(item.name) != now:
            shown[item.name] = now
            name, state, trials, _, metric, *_ = search_cells(item)
            line = ", ".join(
                part for part in (f"{name}: {state}", f"trial {trials}", metric) if part
            )
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def _print_changes(
    runs: Iterable[RunState], shown: dict[str, tuple[object, ...]], console: Console
) -> None:
    """A line for every Run whose state or epoch has changed."""
    for item in runs:
        now = (item.state, epochs_done(item))
        if item.state != "PENDING" and shown.get(item.run.key) != now:
            shown[item.run.key] = now
            name, state, epoch, loss, metric, speed, left = cells(item)
            what = "images" if item.run.artifacts else "epoch"
            parts = [f"{name}: {state}", f"{what} {epoch}", f"loss {loss}" if loss else "", metric]
            parts += [f"{speed} images/s" if speed else "", f"{left} left" if left else ""]
            line = ", ".join(part for part in parts if part)
            console.print(line, soft_wrap=True, highlight=False, markup=False)
