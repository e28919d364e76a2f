"""The comparison of a submission, written as its artifacts: tables and figures."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from orchestrator.artist import LAST_MASKS
from orchestrator.compare import RunRecord, Table, as_csv, as_markdown, tables, unfinished
from orchestrator.plots import PLOTS, Pixels, curves_data, draw_curves, draw_maps, save
from orchestrator.results import LOSS, Submission, comparison, records, with_curves
from orchestrator.strips import Strip, draw_grid, strips_data
from orchestrator.tracking import Tracker


def write_comparison(tracker: Tracker, submission: Submission) -> None:
    """Tables as CSV and Markdown, figures as PNG: artifacts of the submission."""
    spec = comparison(submission.plan)
    found = with_curves(records(submission), tracker, spec)
    made = tables(found, spec)
    note = unfinished(found, spec)
    plan = submission.plan
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tables", "plots"):
            (folder / name).mkdir()
        (folder / "tables/comparison.csv").write_text(as_csv(made), encoding="utf-8")
        text = as_markdown(made, plan["question"], plan["study"], note)
        (folder / "tables/comparison.md").write_text(text, encoding="utf-8")
        for name, figure in _figures(tracker, submission, found, made):
            save(figure, folder / f"plots/{name}.png")
        tracker.log_files(submission.tracked.run_id, folder)
    tracker.describe(submission.tracked.run_id, text)


def _figures(
    tracker: Tracker, submission: Submission, found: Sequence[RunRecord], made: Sequence[Table]
) -> Iterator[tuple[str, Figure]]:
    """Those that the study asks for, by name."""
    spec = comparison(submission.plan)
    for name in spec.plots:
        if name == "loss":  # of every stage, also of those that are not compared
            every = tables(found, replace(spec, metric=LOSS, stages=None, reference={}))
            yield name, draw_curves(curves_data(every, made))
        elif name == "tsne":
            yield name, draw_maps(_last_maps(tracker, submission, made))
        elif name == "masks":
            yield name, draw_grid(_last_masks(tracker, submission, made))
        else:
            yield name, PLOTS[name](made)


def _last_maps(
    tracker: Tracker, submission: Submission, made: Sequence[Table]
) -> dict[str, Pixels]:
    """label → the t-SNE picture after the last epoch, of the first seed that has one."""
    epochs = {item.run_id: item.fact("epochs") for item in submission.runs}
    with tempfile.TemporaryDirectory() as folder:
        return {
            name: imread(tracker.download_file(run_id, path, Path(folder)))
            for name, run_id in _first_runs(made)
            for path in [f"plots/tsne_epoch{epochs[run_id]}.png"]
            if path in tracker.files(run_id, "plots")
        }


def _last_masks(
    tracker: Tracker, submission: Submission, made: Sequence[Table]
) -> dict[str, list[Strip]]:
    """label → the watched images' masks after the last epoch, of the first seed."""
    epochs = {item.run_id: item.fact("epochs") for item in submission.runs}
    masks, path = {}, f"masks/{LAST_MASKS}"
    with tempfile.TemporaryDirectory() as folder:
        for name, run_id in _first_runs(made):
            if path in tracker.files(run_id, "masks"):
                file = tracker.download_file(run_id, path, Path(folder))
                with np.load(file, allow_pickle=False) as kept:
                    masks[name] = strips_data(int(epochs[run_id]), dict(kept))
    return masks


def _first_runs(made: Sequence[Table]) -> Iterator[tuple[str, str]]:
    """Label with seed, and MLflow run, of every row's first seed."""
    for row in (row for one in made for row in one.rows):
        for run in row.runs[:1]:
            yield f"{row.label}, seed {run.seed}", str(run.run_id)
