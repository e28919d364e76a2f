"""Register the best model of each stage, so that it can be served by name."""

import logging

from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import RunState, Submission, load
from orchestrator.tracking.tags import Tag
from trainables.metrics import metric_of

log = logging.getLogger("orchestrator")


def register_best(tracker: Tracker, store: Store, tracked: TrackedRun) -> None:
    """Register, for each stage of a closed submission whose models predict, the model that is best
    on validation over all of its labels and seeds. The test chooses nothing.

    A server that has no registry, or does not answer, is told of in the log: the study stands
    without it.
    """
    try:
        submission = load(tracker.reader, tracker.reader.run(tracked.run_id))
        for stage, (item, figure) in _best_of_stages(store, submission).items():
            about = f"{item.run.name}, {item.run.select} {figure:.4g}"
            _register(tracker, item, f"{submission.plan['study']}.{stage}", about)
    except TrackingError as error:
        log.warning("the best models are not registered: %s", error)


def _best_of_stages(store: Store, submission: Submission) -> dict[str, tuple[RunState, float]]:
    """Return stage → its best finished Run, and the figure that says so."""
    best: dict[str, tuple[RunState, float]] = {}
    for item in submission.runs:
        if item.state != State.FINISHED or not item.run.predicts:
            continue
        figure = _validated(store, item)
        if figure is None:
            continue
        sign = 1 if metric_of(item.run.select).mode == "max" else -1
        known = best.get(item.run.stage)
        if known is None or sign * figure > sign * known[1]:
            best[item.run.stage] = item, figure
    return best


def _validated(store: Store, item: RunState) -> float | None:
    """Return the figure that chose a Run's checkpoint; None where the store has none of it."""
    result = store.run(item.run.key).result()
    if result is None:
        return None
    chosen = [e for e in result["history"] if int(e["epoch"]) == int(result["best_epoch"])]
    value = chosen[0].get(item.run.select) if chosen else None
    return None if value is None else float(value)


def _register(tracker: Tracker, item: RunState, name: str, about: str) -> None:
    tracked = item.tracked
    if tracked is not None and (origin := tracked.tags.get(Tag.REUSED_FROM)):
        tracked = tracker.reader.run(origin)  # its model is with the original
    address = tracked.tags.get(Tag.MODEL_BEST, "") if tracked else ""
    if tracked is not None and address.startswith("models:/"):
        model = address.removeprefix("models:/")
        tracker.registry.set_best(name, model, tracked.run_id, about)
