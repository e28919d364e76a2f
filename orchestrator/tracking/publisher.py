"""What a Run leaves when it ends → MLflow: test figures, curves, models, artifacts, logs.

What MLflow has already is not sent again."""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trainables
from orchestrator.planning.run import Run
from orchestrator.plots.curves import run_curves
from orchestrator.reporting.style import save
from orchestrator.storage.checkpoints import TRAINING, WEIGHTS, Checkpoint
from orchestrator.storage.manifest import MANIFEST
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import ModelFiles, TrackedRun, Tracker, TrackingError
from trainables.engine.early_stopping import best_epoch
from trainables.metrics import metric_of

log = logging.getLogger(__name__)
Epoch = Mapping[str, float]


class Publisher:
    """Sends what the store holds of ended Runs."""

    def __init__(self, tracker: Tracker, store: Store) -> None:
        self.tracker, self.store = tracker, store

    def origin(self, run: Run) -> str | None:
        """The MLflow run of whoever has trained a Run, if this server has it: another one, or one
        whose database was lost, is sent all of it."""
        origin = self.store.run(run.key).origin()
        try:
            return self.tracker.run(origin["run_id"]).run_id if origin else None
        except TrackingError as error:
            if error.answered:
                return None
            raise

    def result(
        self, run: Run, tracked: TrackedRun, result: Mapping[str, Any], stamps: dict[int, int]
    ) -> None:
        """Test figures, plots and models of a finished Run. stamps: as in `Tracker.log_epochs`."""
        best = int(result["best_epoch"])
        have = self.tracker.run(tracked.run_id)
        if not all(name in have.metrics for name in result["test"]):
            self.tracker.log_epochs(tracked.run_id, [{"epoch": best, **result["test"]}], stamps)
        self.tracker.set_tags(
            tracked.run_id,
            {**result["facts"], "best_epoch": str(best), "epochs": str(len(result["history"]))},
        )
        if run.artifacts:
            if "artifacts" not in have.tags and tracked.tags.get("kind") != "reused":
                self._artifacts(run, tracked)
                self.tracker.set_tags(tracked.run_id, {"artifacts": f"{run.artifacts}/"})
            return
        if "plots" not in have.tags:
            tested = {"epoch": best, **result["test"]}
            self._plots(tracked, [*result["history"], tested], best)
            self.tracker.set_tags(tracked.run_id, {"plots": "plots/"})
        if tracked.tags.get("kind") == "reused":
            return
        last = len(result["history"])
        for name, epoch in {"best": best, "last": last}.items():
            if f"model_{name}" not in have.tags:
                uri = self._model(run, tracked, name, epoch)
                self.tracker.set_tags(tracked.run_id, {f"model_{name}": uri})

    def trial(self, run: Run, tracked: TrackedRun, history: Sequence[Epoch], outcome: str) -> None:
        """What a trial leaves: its curves and its last checkpoint. It was not tested."""
        best = best_epoch(history, run.select, metric_of(run.select).mode)
        have = self.tracker.run(tracked.run_id).tags
        facts = {"best_epoch": str(best), "epochs": str(len(history)), "outcome": outcome}
        if have.get("epochs") != str(len(history)):
            self._plots(tracked, history, best)
            facts["model_last"] = self._model(run, tracked, "last", len(history))
        self.tracker.set_tags(tracked.run_id, facts)

    def _artifacts(self, run: Run, tracked: TrackedRun) -> None:
        """What a producer has made; its manifest names every file with its sha256."""
        checkpoint = self.store.run(run.key).best()
        if checkpoint is None:
            log.warning("%s: what it made is damaged, and is not sent", run.name)
        else:
            self.tracker.log_files(tracked.run_id, checkpoint.path, run.artifacts)

    def logs(self, run: Run, tracked: TrackedRun) -> None:
        """What every rank of every attempt had to say; a reused Run's stand with the original."""
        logs = self.store.run(run.key).logs()
        if logs and tracked.tags.get("kind") != "reused":
            self.tracker.log_files(tracked.run_id, next(iter(logs.values())).parent, "logs")

    def _plots(self, tracked: TrackedRun, history: Sequence[Epoch], best: int) -> None:
        series: dict[str, list[tuple[int, float]]] = {}
        for entry in history:
            for name, value in entry.items():
                if name != "epoch":
                    series.setdefault(name, []).append((int(entry["epoch"]), float(value)))
        with tempfile.TemporaryDirectory() as folder:
            for name, figure in run_curves(series, best).items():
                save(figure, Path(folder) / f"{name}.png")
            self.tracker.log_files(tracked.run_id, Path(folder), "plots")

    def _model(self, run: Run, tracked: TrackedRun, name: str, epoch: int) -> str:
        """The best checkpoint as a model that predicts; the last one as its files."""
        checkpoint = self.store.run(run.key).load(epoch)
        if checkpoint is None:
            log.warning("%s: no model of epoch %d is logged: it is damaged", run.name, epoch)
            return "damaged"
        predicts = name == "best" and run.predicts
        facts = {
            "epoch": str(epoch),
            "metric": f"{run.select}={checkpoint.info['history'][-1][run.select]:.6g}",
            "run_key": run.key,
            "address": str(checkpoint.path),
            "sha256": checkpoint.files[WEIGHTS]["sha256"],
        }
        with tempfile.TemporaryDirectory() as folder:
            files = _model_files(checkpoint, Path(folder))
            code = Path(trainables.__file__).parent if predicts else None
            return self.tracker.log_model(
                tracked, ModelFiles(files, f"{run.stage}-{name}", code, facts, epoch)
            )


def _model_files(checkpoint: Checkpoint, folder: Path) -> Path:
    """A folder with what predicting needs: weights and description, not the optimizer."""
    for path in checkpoint.path.iterdir():
        if path.name not in (TRAINING, MANIFEST):
            (folder / path.name).symlink_to(path)
    return folder
