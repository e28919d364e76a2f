"""The comparison of a submission, written as its artifacts: tables and figures."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.image import imread

from orchestrator.compare import RunRecord, Table, as_csv, as_markdown, tables, unfinished
from orchestrator.plots import PLOTS, Pixels, curves_data, draw_curves, draw_maps, save
from orchestrator.results import LOSS, Submission, comparison, records, with_curves
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
        else:
            yield name, PLOTS[name](made)


def _last_maps(
    tracker: Tracker, submission: Submission, made: Sequence[Table]
) -> dict[str, Pixels]:
    """label → the t-SNE picture after the last epoch, of the first seed that has one."""
    tags = {item.run_id: item.tracked.tags for item in submission.runs if item.tracked}
    maps: dict[str, Pixels] = {}
    with tempfile.TemporaryDirectory() as folder:
        for row in (row for one in made for row in one.rows):
            for run in row.runs:
                has = tags[run.run_id]
                if has.get("maps") == "plots/":
                    path = f"plots/tsne_epoch{has['epochs']}.png"
                    picture = tracker.download_file(str(run.run_id), path, Path(folder))
                    maps[f"{row.label}, seed {run.seed}"] = imread(picture)
                    break
    return maps
