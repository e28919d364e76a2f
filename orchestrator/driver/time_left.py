"""Estimate how long a submission still takes, from what its Runs report and what others took."""

from orchestrator.planning.estimates import Task, epochs_of, kind_of, known_times, last_end
from orchestrator.reporting.comparison import State
from orchestrator.reporting.numbers import duration
from orchestrator.storage.record_shapes import current_progress
from orchestrator.storage.run_records import Store
from orchestrator.tracking.run_states import RunState, Submission
from orchestrator.tracking.tags import Tag


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


def epochs_done(item: RunState) -> int:
    """Return the epochs that a Run has finished, or images that a producer has."""
    if item.run.artifacts:
        return int(item.fact(Tag.IMAGES) or current_progress(item.progress).get("done", 0))
    if item.tracked is not None and Tag.EPOCHS in item.tracked.tags:
        return int(item.tracked.tags[Tag.EPOCHS])
    return int(current_progress(item.progress).get("done", 0))
