"""Write the comparison of a submission, tables and figures, as artifacts of its MLflow run."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread

from orchestrator.drawing.mask_plots import MaskRow, mask_rows
from orchestrator.drawing.style import Pixels, save
from orchestrator.planning.code_version import tree_version
from orchestrator.planning.plan import json_digest
from orchestrator.plots.contract import load_plot
from orchestrator.reporting.comparison import (
    Comparison,
    PairedDifference,
    RunRecord,
    State,
    Table,
    tables,
    unfinished,
)
from orchestrator.reporting.exports import as_csv
from orchestrator.reporting.predictions import (
    TESTED,
    Predictions,
    image_test,
    read_predictions,
)
from orchestrator.reporting.tables import as_markdown
from orchestrator.tracking.mlflow_client import MlflowReader
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import (
    RunState,
    Submission,
    comparison,
    records,
    with_curves,
)
from orchestrator.tracking.tags import Tag
from trainables.record_files import LAST_MASKS, PREDICTIONS

log = logging.getLogger(__name__)
_DOWNLOADS = 8  # at once


def write_comparison(tracker: Tracker, submission: Submission) -> None:
    """Log tables as CSV and Markdown, and plots as PNG.

    A comparison that was made from the same figures by the same code is kept as it is: to fetch and
    draw a thousand curves takes a while.
    """
    reader, writer, run_id = tracker.reader, tracker.writer, submission.tracked.run_id
    spec, source = comparison(submission.plan), _source(reader, submission)
    folders = ["tables", "plots"] if spec.plots else ["tables"]
    is_current = submission.tracked.tags.get(Tag.COMPARISON) == source
    if is_current and all(reader.files(run_id, folder) for folder in folders):
        return
    plots = {name: load_plot(name) for name in spec.plots}
    always = [metric for plot in plots.values() for metric in plot.histories]
    runs = with_curves(records(submission), reader, spec, always)
    data, plan = ComparisonData(reader, submission, runs), submission.plan
    text = as_markdown(data.tables, plan["question"], plan["study"], unfinished(runs, spec))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tables", "plots"):
            (folder / name).mkdir()
        (folder / "tables/comparison.csv").write_text(as_csv(data.tables), encoding="utf-8")
        (folder / "tables/comparison.md").write_text(text, encoding="utf-8")
        for name, plot in plots.items():
            save(plot.draw(data), folder / f"plots/{name}.png")
        writer.log_files(run_id, folder)
    writer.describe(run_id, text)
    writer.set_tags(run_id, {Tag.COMPARISON: source})


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
        tested = image_test(difference.metric, pairs) if pairs else None
    except ValueError as error:
        remark = str(error)
    return replace(difference, images=tested, unkept=tuple(unkept), remark=remark)


def _source(reader: MlflowReader, submission: Submission) -> str:
    """Return the digest of what a comparison is made from: the code, the plan, and every Run's
    state, last figures and artifacts. Nothing else of a Run changes once it is FINISHED."""
    runs: list[Any] = []
    for item in submission.runs:
        runs.append([item.state, item.run_id])
        if item.tracked is not None:
            facts = [item.fact(name) for name in (Tag.EPOCHS, Tag.FIGURES)]
            runs[-1] += [dict(item.tracked.metrics), facts, _artifacts(reader, item)]
    return json_digest([tree_version(), submission.plan, runs])


def _artifacts(reader: MlflowReader, item: RunState) -> list[tuple[str, str]]:
    """Return a producer's artifacts as MLflow run and path: a reused Run's are with the original,
    which may still be uploading them."""
    if not item.run.artifacts or item.state != State.FINISHED or item.tracked is None:
        return []
    run_id = item.tracked.tags.get(Tag.REUSED_FROM, item.tracked.run_id)
    return [(run_id, path) for path in reader.files(run_id, item.run.artifacts)]


@dataclass(frozen=True)
class ComparisonData:
    """Reads what the plots of a comparison draw: from MLflow, when a plot asks for it."""

    reader: MlflowReader
    submission: Submission
    runs: Sequence[RunRecord]

    @cached_property
    def tables(self) -> list[Table]:
        """Return the compared rows."""
        return compared_tables(self.reader, self.runs, comparison(self.submission.plan))

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
                f"{label}, seed {run.seed}": imread(
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
                    names[path]: imread(self.reader.download_file(run_id, path, Path(folder)))
                    for run_id, path in _artifacts(self.reader, item)
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
