"""The comparison of a submission, written as its artifacts: tables and figures."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread

from orchestrator.planning.code_version import tree_version
from orchestrator.planning.plan import json_digest
from orchestrator.reporting.comparison import RunRecord, Table, tables, unfinished
from orchestrator.reporting.mask_plots import Strip, draw_grid, strips_data
from orchestrator.reporting.plots import PLOTS, Pixels, curves_data, draw_curves, draw_maps, save
from orchestrator.reporting.tables import as_csv, as_markdown
from orchestrator.tracking.mlflow_client import Tracker
from orchestrator.tracking.run_states import (
    LOSS,
    RunState,
    Submission,
    comparison,
    records,
    with_curves,
)
from trainables.monitoring.record_files import LAST_MASKS


def write_comparison(tracker: Tracker, submission: Submission) -> None:
    """Tables as CSV and Markdown, figures as PNG: artifacts of the submission. What stands there
    already, made of the same figures by the same code, is left as it is: a thousand curves take a
    while to fetch and draw."""
    run_id, source = submission.tracked.run_id, _source(tracker, submission)
    spec = comparison(submission.plan)
    folders = ["tables", "plots"] if spec.plots else ["tables"]
    stands = submission.tracked.tags.get("comparison") == source
    if stands and all(tracker.files(run_id, folder) for folder in folders):
        return
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
        tracker.log_files(run_id, folder)
    tracker.describe(run_id, text)
    tracker.set_tags(run_id, {"comparison": source})


def _source(tracker: Tracker, submission: Submission) -> str:
    """Digest of what a comparison is made of: the code, the plan, and every Run's state, last
    figures and pictures. All else of a Run is there before it is FINISHED."""
    runs: list[Any] = []
    for item in submission.runs:
        runs.append([item.state, item.run_id])
        if item.tracked is not None:
            facts = [item.fact(name) for name in ("epochs", "maps")]
            runs[-1] += [dict(item.tracked.metrics), facts, _pictures(tracker, item)]
    return json_digest([tree_version(), submission.plan, runs])


def _pictures(tracker: Tracker, item: RunState) -> list[tuple[str, str]]:
    """What a producer has made, as MLflow run and path: what is reused stands with the original,
    which may yet be on its way."""
    if not item.run.artifacts or item.state != "FINISHED" or item.tracked is None:
        return []
    run_id = item.tracked.tags.get("reused_from", item.tracked.run_id)
    return [(run_id, path) for path in tracker.files(run_id, item.run.artifacts)]


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
            masks = _last_masks(tracker, submission, made)
            yield name, draw_grid(masks, _produced(tracker, submission, masks))
        else:
            yield name, PLOTS[name](made)


def _last_maps(
    tracker: Tracker, submission: Submission, made: Sequence[Table]
) -> dict[str, Pixels]:
    """label → the t-SNE picture after the last epoch, of the first seed that has one."""
    epochs = {item.run_id: item.fact("epochs") for item in submission.runs}
    found = _first_files(tracker, made, lambda run: f"plots/tsne_epoch{epochs[run.run_id]}.png")
    with tempfile.TemporaryDirectory() as folder:
        return {
            f"{label}, seed {run.seed}": imread(
                tracker.download_file(str(run.run_id), path, Path(folder))
            )
            for label, run, path in found
        }


def _last_masks(
    tracker: Tracker, submission: Submission, made: Sequence[Table]
) -> dict[str, list[Strip]]:
    """label → the watched images' masks after the last epoch, of the first seed that has them."""
    epochs = {item.run_id: item.fact("epochs") for item in submission.runs}
    masks = {}
    with tempfile.TemporaryDirectory() as folder:
        for label, run, path in _first_files(tracker, made, lambda run: f"masks/{LAST_MASKS}"):
            file = tracker.download_file(str(run.run_id), path, Path(folder))
            with np.load(file, allow_pickle=False) as kept:
                strips = strips_data(int(epochs[run.run_id]), dict(kept))
            masks[f"{label}, seed {run.seed}"] = strips
    return masks


def _produced(
    tracker: Tracker, submission: Submission, masks: Mapping[str, Sequence[Strip]]
) -> dict[str, dict[str, Pixels]]:
    """label of a producer → watched image → its picture, of those that it has looked at."""
    wanted = {strip.name for strips in masks.values() for strip in strips}
    found: dict[str, dict[str, Pixels]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for item in submission.runs:
            names = {f"{item.run.artifacts}/{name}.png": name for name in sorted(wanted)}
            pictures = {
                names[path]: imread(tracker.download_file(run_id, path, Path(folder)))
                for run_id, path in _pictures(tracker, item)
                if path in names
            }
            if pictures:
                found[item.run.label] = pictures
    return found


def _first_files(
    tracker: Tracker, made: Sequence[Table], path_of: Callable[[RunRecord], str]
) -> Iterator[tuple[str, RunRecord, str]]:
    """Of every row the first Run that has the file: label, Run, path."""
    for row in (row for one in made for row in one.rows):
        for run in row.runs:
            path = path_of(run)
            if path in tracker.files(str(run.run_id), path.partition("/")[0]):
                yield row.label, run, path
                break
