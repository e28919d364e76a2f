"""Make the tables of a comparison, and draw its plots, from what MLflow has.

It is imported when something has changed: numpy, scipy and matplotlib take a second to load.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from orchestrator.drawing.mask_plots import MaskRow, mask_rows
from orchestrator.drawing.style import Pixels, read_picture, save
from orchestrator.plots.contract import load_plot
from orchestrator.reporting.comparison import (
    Comparison,
    PairedDifference,
    RunRecord,
    Table,
    tables,
    unfinished,
)
from orchestrator.reporting.exports import as_csv, as_json
from orchestrator.reporting.predictions import (
    TESTED,
    Predictions,
    image_test,
    read_predictions,
)
from orchestrator.reporting.tables import as_latex, as_markdown, as_text
from orchestrator.tracking.mlflow_client import MlflowReader
from orchestrator.tracking.run_states import (
    Submission,
    artifacts_of,
    comparison,
    records,
    with_curves,
)
from orchestrator.tracking.tags import Tag
from trainables.record_files import LAST_MASKS, PREDICTIONS

log = logging.getLogger(__name__)
_DOWNLOADS = 8  # at once


def forms_of(reader: MlflowReader, submission: Submission) -> tuple[dict[str, str], str]:
    """Return the compared tables under the names of `--format`, and what names the Runs that no row
    counts; empty where all count."""
    plan, spec, runs = submission.plan, comparison(submission.plan), records(submission)
    compared, note = compared_tables(reader, runs, spec), unfinished(runs, spec)
    forms = {
        "text": f"{plan['question']}\n\n{as_text(compared)}",
        "csv": as_csv(compared).rstrip(),
        "markdown": as_markdown(compared, plan["question"], plan["study"], note).rstrip(),
        "latex": as_latex(compared),
        "json": json.dumps(as_json(compared), indent=1),
    }
    return forms, note or ""


def compared_tables(
    reader: MlflowReader, runs: Sequence[RunRecord], spec: Comparison
) -> list[Table]:
    """Return the compared tables. Differences are tested over the test images too, where MLflow has
    what their Runs predicted."""
    made = tables(runs, spec)
    if spec.metric not in TESTED:
        return made
    rows = [row for table in made for d in table.differences for row in (d.first, d.second)]
    wanted = {run.run_id for row in rows for run in row.runs if run.facts.get(Tag.TEST_IMAGES)}
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        read = pool.map(partial(_read, reader), ids := sorted(filter(None, wanted)))
        kept = {run_id: found for run_id, found in zip(ids, read, strict=True) if found}
    return [
        replace(table, differences=tuple(_tested(d, kept) for d in table.differences))
        for table in made
    ]


def _read(reader: MlflowReader, run_id: str) -> Predictions | None:
    with tempfile.TemporaryDirectory() as folder:
        path = reader.download_file(run_id, PREDICTIONS, Path(folder))
        try:
            return read_predictions(path)
        except ValueError as error:
            log.warning("predictions of MLflow run %s: %s", run_id, error)
            return None


def _tested(difference: PairedDifference, kept: Mapping[str, Predictions]) -> PairedDifference:
    """Return a difference with its test over images. kept: MLflow run → what it predicted."""
    pairs: dict[int, tuple[Predictions, Predictions]] = {}
    unkept: list[str] = []
    rows = [{run.seed: run for run in row.runs} for row in (difference.first, difference.second)]
    for seed in difference.seeds:
        runs = [of_seed[seed] for of_seed in rows]
        both = [kept.get(str(run.run_id)) for run in runs]
        unkept += [run.name for run, found in zip(runs, both, strict=True) if found is None]
        if both[0] is not None and both[1] is not None:
            pairs[seed] = both[0], both[1]
    remark, tested = "", None
    try:
        if difference.first.splits and difference.overlap:
            raise ValueError("the test sets of their splits share images")
        folds = {run.seed: run.fold for run in difference.first.runs}
        tested = image_test(difference.metric, pairs, folds) if pairs else None
    except ValueError as error:
        remark = str(error)
    return replace(difference, images=tested, unkept=tuple(unkept), remark=remark)


def draw_plots(reader: MlflowReader, submission: Submission, folder: Path) -> None:
    """Draw the plots that the study asks for into a folder, as PNG."""
    spec = comparison(submission.plan)
    plots = {name: load_plot(name) for name in spec.plots}
    always = [metric for plot in plots.values() for metric in plot.histories]
    runs = with_curves(records(submission), reader, spec, always) if plots else []
    data = ComparisonData(reader, submission, runs)
    for name, plot in plots.items():
        save(plot.draw(data), folder / f"{name}.png")


@dataclass(frozen=True)
class ComparisonData:
    """Reads what the plots of a comparison draw: from MLflow, when a plot asks for it."""

    reader: MlflowReader
    submission: Submission
    runs: Sequence[RunRecord]

    @cached_property
    def tables(self) -> list[Table]:
        """Return the compared rows. No plot shows tests over images, which take a download a
        Run."""
        return tables(self.runs, comparison(self.submission.plan))

    def tables_of(self, metric: str) -> list[Table]:
        """Return the rows of another metric, over every stage of the study."""
        spec = comparison(self.submission.plan)
        return tables(self.runs, replace(spec, metric=metric, stages=None, reference={}))

    def tsne_maps(self) -> dict[str, Pixels]:
        """Return label and seed → the t-SNE picture after the last epoch, of the first seed with
        one."""
        epochs = self._epochs()
        files = self._first_files(lambda run: f"plots/tsne_epoch{epochs[run.run_id]}.png")
        with tempfile.TemporaryDirectory() as folder:
            return {
                f"{label}, seed {run.seed}": read_picture(
                    self.reader.download_file(str(run.run_id), path, Path(folder))
                )
                for label, run, path in files
            }

    def masks(self) -> dict[str, list[MaskRow]]:
        """Return label and seed → masks after the last epoch, of the first seed that has them."""
        epochs, masks = self._epochs(), {}
        with tempfile.TemporaryDirectory() as folder:
            for label, run, path in self._first_files(lambda run: f"masks/{LAST_MASKS}"):
                file = self.reader.download_file(str(run.run_id), path, Path(folder))
                with np.load(file, allow_pickle=False) as arrays:
                    rows = mask_rows(int(epochs[run.run_id]), dict(arrays))
                masks[f"{label}, seed {run.seed}"] = rows
        return masks

    def produced_pictures(self, images: Sequence[str]) -> dict[str, dict[str, Pixels]]:
        """Return the label of a producer → name of an image → its picture, where the producer has
        made one."""
        produced: dict[str, dict[str, Pixels]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for item in self.submission.runs:
                names = {f"{item.run.artifacts}/{name}.png": name for name in images}
                pictures = {
                    names[path]: read_picture(self.reader.download_file(run_id, path, Path(folder)))
                    for run_id, path in artifacts_of(self.reader, item)
                    if path in names
                }
                if pictures:
                    produced[item.run.label] = pictures
        return produced

    def _epochs(self) -> dict[str | None, str]:
        """MLflow run → number of epochs that it was trained for."""
        return {item.run_id: item.fact(Tag.EPOCHS) for item in self.submission.runs}

    def _first_files(
        self, path_of: Callable[[RunRecord], str]
    ) -> Iterator[tuple[str, RunRecord, str]]:
        """Yield of every compared row the first Run that has the file: label, Run, path."""
        for row in (row for table in self.tables for row in table.rows):
            for run in row.runs:
                path = path_of(run)
                if path in self.reader.files(str(run.run_id), path.partition("/")[0]):
                    yield row.label, run, path
                    break
