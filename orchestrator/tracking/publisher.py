"""Send what an ended Run leaves to MLflow: test figures, curves, models, artifacts, logs.

What MLflow has already is not sent again.
"""

import importlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trainables
from orchestrator.drawing.render_process import RenderProcess
from orchestrator.pages import pictures
from orchestrator.planning.run import Run
from orchestrator.plots.contract import save_curves
from orchestrator.storage.checkpoints import TRAINING, WEIGHTS
from orchestrator.storage.files import keep_once
from orchestrator.storage.manifest import verified_file
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import ModelFiles, Tracker
from orchestrator.tracking.tags import Kind, Tag, current_names
from trainables.engine.early_stopping import best_epoch
from trainables.metrics import metric_of
from trainables.record_files import MAPS, PREDICTIONS, epoch_files

log = logging.getLogger(__name__)
_HEAVY = (TRAINING, WEIGHTS)  # the others of a checkpoint are small
DAMAGED = "damaged"  # stands in place of a model's address
Epoch = Mapping[str, float]  # `epoch` and the metrics of that epoch


class Publisher:
    """Sends what the store holds of ended Runs."""

    def __init__(self, tracker: Tracker, store: Store) -> None:
        self.tracker, self.store, self.render = tracker, store, RenderProcess()
        self._drawn: dict[str, set[str]] = {}  # run id → files whose pictures were sent or damaged

    def origin(self, run: Run) -> str | None:
        """Return the id of the MLflow run under which a Run was trained; None where this server
        does not have it: another server, or one that lost its database, is sent all of the Run."""
        origin = self.store.run(run.key).origin()
        try:
            return self.tracker.reader.run(origin["run_id"]).run_id if origin else None
        except TrackingError as error:
            if error.answered:
                return None
            raise

    def result(
        self, run: Run, tracked: TrackedRun, result: Mapping[str, Any], stamps: dict[int, int]
    ) -> None:
        """Send test figures, plots and models of a finished Run. stamps: as in
        `MlflowWriter.log_epochs`."""
        best, epochs = int(result["best_epoch"]), len(result["history"])
        reused = tracked.tags.get(Tag.KIND) == Kind.REUSED
        now = self.tracker.reader.run(tracked.run_id)
        tested = {"epoch": best, **result["test"]}
        if not all(name in now.metrics for name in result["test"]):
            self.tracker.writer.log_epochs(tracked.run_id, [tested], stamps)
        facts = current_names(result["facts"])
        facts |= {Tag.BEST_EPOCH: str(best), Tag.EPOCHS: str(epochs)}
        if result.get("seconds"):
            facts[Tag.SECONDS] = f"{float(result['seconds']):.1f}"
        self._set_tags(tracked, facts)
        if Tag.PREDICTIONS not in now.tags:
            self._predictions(run, now, best, stamps)
        if run.artifacts:
            if Tag.ARTIFACTS not in now.tags and not reused:
                self._artifacts(run, tracked)
                self._set_tags(tracked, {Tag.ARTIFACTS: f"{run.artifacts}/"})
            return
        if Tag.PLOTS not in now.tags:
            self._plots(tracked, [*result["history"], tested], best)
            self._set_tags(tracked, {Tag.PLOTS: "plots/"})
        if not reused:
            self._models(run, tracked, now.tags, best, epochs)

    def _models(
        self, run: Run, tracked: TrackedRun, tags: Mapping[str, str], best: int, last: int
    ) -> None:
        """Send the best and the last checkpoint, or what MLflow lacks of them; one model where they
        are the same. tags: those that the run has already."""
        address = self._model(run, tracked, "best", best, tags.get(Tag.MODEL_BEST))
        last_address = address
        if last != best:
            last_address = self._model(run, tracked, "last", last, tags.get(Tag.MODEL_LAST))
        self._set_tags(tracked, {Tag.MODEL_BEST: address, Tag.MODEL_LAST: last_address})

    def trial(self, run: Run, tracked: TrackedRun, history: Sequence[Epoch], outcome: str) -> None:
        """Send a trial's curves and its last checkpoint. A trial is not tested."""
        best, epochs = best_epoch(history, run.select, metric_of(run.select).mode), len(history)
        tags: dict[str, str] = {
            Tag.BEST_EPOCH: str(best),
            Tag.EPOCHS: str(epochs),
            Tag.OUTCOME: outcome,
        }
        if self.tracker.reader.run(tracked.run_id).tags.get(Tag.EPOCHS) != str(epochs):
            self._plots(tracked, history, best)
            tags[Tag.MODEL_LAST] = self._model(run, tracked, "last", epochs)
        self._set_tags(tracked, tags)

    def logs(self, run: Run, tracked: TrackedRun) -> None:
        """Send the logs of every rank of every attempt; a reused Run's are with the original."""
        logs = self.store.run(run.key).logs()
        if logs and tracked.tags.get(Tag.KIND) != Kind.REUSED:
            folder = next(iter(logs.values())).parent
            self.tracker.writer.log_files(tracked.run_id, folder, "logs")

    def pictures(self, run: Run, tracked: TrackedRun) -> None:
        """Send pictures of epochs that a training Run has recorded: masks and views. `figures`
        writes the same files again, and the t-SNE maps, which need all epochs."""
        folder = self.store.run(run.key).features()
        if tracked.tags.get(Tag.KIND) == Kind.TRIAL:  # they go to the Run that continues it
            return
        drawn = self._drawn.setdefault(tracked.run_id, set())
        if folder is None or not {path.name for path in epoch_files(folder)} - drawn:
            return
        # it loads numpy, which commands that only look need not
        drawing = importlib.import_module("orchestrator.drawing.epoch_pictures")
        with tempfile.TemporaryDirectory() as into:
            try:
                names = drawing.draw_new(folder, drawn, Path(into))
            except (OSError, ValueError) as error:
                log.warning("%s: no pictures while it trains: %s", run.name, error)
                drawn |= {path.name for path in epoch_files(folder)}
                return
            self.tracker.writer.log_files(tracked.run_id, Path(into))
        self.tracker.writer.pages.set_tag(tracked.run_id, pictures.TAG, "True")
        drawn |= set(names)

    def figures(self, run: Run, tracked: TrackedRun) -> bool:
        """Send t-SNE, masks and diagram once another process has drawn them. Returns whether
        nothing is left to be sent."""
        folder = self.store.run(run.key).features()
        if folder is None or Tag.FIGURES in tracked.tags:
            return True
        if not self.render.has_drawn(folder):
            return False
        error = self.render.errors.get(folder)
        if error is None:
            self.tracker.writer.log_files(tracked.run_id, folder / MAPS)
            self._keep_once(tracked, folder / MAPS)
            if (folder / MAPS / pictures.FOLDER).is_dir():
                self.tracker.writer.pages.set_tag(tracked.run_id, pictures.TAG, "True")
        else:
            log.warning("%s: no t-SNE, masks or diagram: %s", run.name, error)
        self._set_tags(tracked, {Tag.FIGURES: f"none: {error}" if error else "plots/"})
        return True

    def _keep_once(self, tracked: TrackedRun, folder: Path) -> None:
        """Store files that were sent once, where the server keeps its artifacts in this home."""
        if self.tracker.artifacts is None:
            return
        sent = self.tracker.artifacts / tracked.experiment_id / tracked.run_id / "artifacts"
        for path in folder.rglob("*"):
            if path.is_file():
                keep_once(sent / path.relative_to(folder), path)

    def _predictions(
        self, run: Run, tracked: TrackedRun, best: int, stamps: dict[int, int]
    ) -> None:
        """Send what a Run predicted of each test image, and the figures that follow from it. A Run
        of an earlier version has none. tracked: as MLflow has it now."""
        path = verified_file(self.store.run(run.key).path / PREDICTIONS)
        if path is None:
            return
        # it loads numpy, which commands that only look need not
        reading = importlib.import_module("orchestrator.reporting.predictions")
        try:
            predictions = reading.read_predictions(path)
        except ValueError as error:
            log.warning("%s: no figures of single images: %s", run.name, error)
            return
        figures = predictions.figures()
        if not all(name in tracked.metrics for name in figures):
            self.tracker.writer.log_epochs(tracked.run_id, [{"epoch": best, **figures}], stamps)
        self.tracker.writer.log_files(tracked.run_id, path.parent, path.parent.name)
        tags: dict[str, str] = {
            Tag.PREDICTIONS: PREDICTIONS,
            Tag.TEST_IMAGES: str(predictions.images),
        }
        self._set_tags(tracked, tags)

    def _set_tags(self, tracked: TrackedRun, tags: Mapping[str, str]) -> None:
        self.tracker.writer.set_tags(tracked.run_id, tags)

    def _artifacts(self, run: Run, tracked: TrackedRun) -> None:
        """Send what a producer has made; its manifest names every file with its sha256."""
        checkpoint = self.store.run(run.key).best()
        if checkpoint is None:
            log.warning("%s: its artifacts are damaged, and are not sent to MLflow", run.name)
        else:
            self.tracker.writer.log_files(tracked.run_id, checkpoint.path, run.artifacts)

    def _plots(self, tracked: TrackedRun, history: Sequence[Epoch], best: int) -> None:
        series: dict[str, list[tuple[int, float]]] = {}
        for entry in history:
            for name, value in entry.items():
                if name != "epoch":
                    series.setdefault(name, []).append((int(entry["epoch"]), float(value)))
        with tempfile.TemporaryDirectory() as folder:
            save_curves(series, best, Path(folder))
            self.tracker.writer.log_files(tracked.run_id, Path(folder), "plots")

    def _model(
        self, run: Run, tracked: TrackedRun, name: str, epoch: int, known: str | None = None
    ) -> str:
        """Log the best checkpoint as a model that predicts, the last one as its files. Returns its
        address; where the checkpoint is damaged the `known` one, or `damaged`."""
        checkpoint = self.store.run(run.key).load(epoch)
        if checkpoint is None:
            log.warning("%s: the checkpoint of epoch %d is damaged: no model", run.name, epoch)
            return known or DAMAGED
        facts: dict[str, str] = {
            Tag.EPOCH: str(epoch),
            Tag.METRIC: f"{run.select}={checkpoint.info['history'][-1][run.select]:.6g}",
            Tag.RUN_KEY: run.key,
            Tag.ADDRESS: str(checkpoint.path),
            Tag.SHA256: checkpoint.files[WEIGHTS]["sha256"],
        }
        files = ModelFiles(
            weights=checkpoint.weights,
            others=tuple(checkpoint.path / file for file in checkpoint.files if file not in _HEAVY),
            name=f"{run.stage}-{name}",
            code=Path(trainables.__file__).parent if name == "best" and run.predicts else None,
            facts=facts,
            epoch=epoch,
        )
        return self.tracker.models.log(tracked, files)
