"""Write what a search tried as artifacts of its MLflow run: a table of its trials, and plots."""

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.drawing.search_plots import draw_best, draw_importance, draw_parallel
from orchestrator.drawing.style import save
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.sampling.importance import importance
from orchestrator.storage.trial_log import Trial, ranked
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.tags import best_metric, importance_metric

_COLUMNS = ("trial", "state", "epochs", "best_epoch", "minutes")


def write_search(
    tracker: Tracker, run: TrackedRun, planned: PlannedSearch, trials: Sequence[Trial]
) -> None:
    """Log tables and plots of a search that has ended, and as metrics its best figure and the
    importance of each parameter. Raises TrackingError when MLflow does not take them."""
    search = planned.search
    shares, best = importance_of(planned, trials), ranked(trials, search.mode)
    plots = {
        "best": draw_best(trials, search.metric, search.mode),
        "parallel": draw_parallel(trials, search),
    }
    if shares:
        plots["importance"] = draw_importance(shares, best, search.metric)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tables", "plots"):
            (folder / name).mkdir()
        text = as_csv(trials, search.metric, list(search.space))
        (folder / "tables/trials.csv").write_text(text, encoding="utf-8")
        for name, plot in plots.items():
            save(plot, folder / f"plots/{name}.png")
        tracker.writer.log_files(run.run_id, folder)
    metrics = {importance_metric(name): share for name, share in shares.items()}
    if best and best[0].figure is not None:
        metrics[best_metric(search.metric)] = best[0].figure
    tracker.writer.log_epochs(run.run_id, [{"epoch": 0, **metrics}], {})


def importance_of(planned: PlannedSearch, trials: Sequence[Trial]) -> dict[str, float]:
    """Return parameter → share of the figures' variance, the largest first.

    Empty for few trials, and for PBT, where a figure comes from many values of a parameter.
    """
    if planned.search.scheduler == "pbt":
        return {}
    mode = planned.search.mode
    observations = [(t.values, t.figure) for t in ranked(trials, mode) if t.figure is not None]
    shares = importance(planned.space, mode, planned.seed, observations)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def as_csv(trials: Sequence[Trial], metric: str, names: Sequence[str]) -> str:
    """Return one line a trial, in the order in which they were drawn. names: of parameters."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, metric, *names, "run_key", "reason"])
    for trial in trials:
        minutes = "" if trial.ended is None else f"{trial.ended / 60:.2f}"
        row = [trial.index, trial.state, trial.epochs, trial.best, minutes, trial.figure]
        values = [trial.current[name] for name in names]
        writer.writerow([*row, *values, trial.key, trial.reason])
    return out.getvalue()
