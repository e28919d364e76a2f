"""What a search has found, as artifacts of its MLflow run: a table of its trials, and figures."""

import csv
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.reporting.plots import save
from orchestrator.reporting.search_plots import draw_best, draw_importance, draw_parallel
from orchestrator.sampling.importance import importance
from orchestrator.storage.trial_log import Trial, ranked
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker

_COLUMNS = ("trial", "state", "epochs", "best_epoch", "minutes")


def write_search(
    tracker: Tracker, run: TrackedRun, planned: PlannedSearch, trials: Sequence[Trial]
) -> None:
    """Tables and figures of a search that has ended; the importance of each parameter is a metric
    and a tag of its run, too."""
    search = planned.search
    shares, best = importance_of(planned, trials), ranked(trials, search.mode)
    figures = {
        "best": draw_best(trials, search.metric, search.mode),
        "parallel": draw_parallel(trials, search),
    }
    if shares:
        figures["importance"] = draw_importance(shares, best, search.metric)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tables", "plots"):
            (folder / name).mkdir()
        text = as_csv(trials, search.metric, list(search.space))
        (folder / "tables/trials.csv").write_text(text, encoding="utf-8")
        for name, figure in figures.items():
            save(figure, folder / f"plots/{name}.png")
        tracker.log_files(run.run_id, folder)
    figures_of_run = {f"importance/{name}": share for name, share in shares.items()}
    if best and best[0].figure is not None:
        figures_of_run[f"best/{search.metric}"] = best[0].figure
    tracker.log_epochs(run.run_id, [{"epoch": 0, **figures_of_run}], {})


def importance_of(planned: PlannedSearch, trials: Sequence[Trial]) -> dict[str, float]:
    """Parameter → share of the figure's variance, the largest first; empty for few trials, and for
    a population, whose figures come from many values each."""
    if planned.search.scheduler == "pbt":
        return {}
    mode = planned.search.mode
    told = [(t.values, t.figure) for t in ranked(trials, mode) if t.figure is not None]
    shares = importance(planned.space, mode, planned.seed, told)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def as_csv(trials: Sequence[Trial], metric: str, names: Sequence[str]) -> str:
    """One line a trial, in the order they were drawn."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, metric, *names, "run_key", "reason"])
    for trial in trials:
        minutes = "" if trial.ended is None else f"{trial.ended / 60:.2f}"
        said: Mapping[str, Any] = trial.current
        row = [trial.index, trial.state, trial.epochs, trial.best, minutes, trial.figure]
        writer.writerow([*row, *(said[name] for name in names), trial.key, trial.reason])
    return out.getvalue()
