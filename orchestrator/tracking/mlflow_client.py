"""The one door to MLflow: explicit run ids, short time-outs, no global state, no waiting inside.

A study is an experiment; a submission is a run in it; its Runs are that run's children. Any call
may raise TrackingError; the caller decides when to try again.
"""

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, Param, RunTag, ViewType
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import Schema, TensorSpec

from orchestrator.config.errors import UserError

TAG = "orchestrator."
_PARENT = "mlflow.parentRunId"
_MODEL_REQUIREMENTS = "torch torchvision numpy pandas pillow pydantic scikit-learn".split()
_PAGE = 1000
_REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST")


class TrackingError(UserError):
    """MLflow did not answer, or refused (then `answered`); one line."""

    def __init__(self, message: str, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run of ours. status: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""

    run_id: str
    status: str
    tags: Mapping[str, str]  # ours, without `orchestrator.`
    metrics: Mapping[str, float]  # the last value of each
    experiment_id: str


@dataclass(frozen=True)
class ModelFiles:
    """A checkpoint to be logged as a model. code: folder of the package that can load it."""

    folder: Path
    name: str
    code: Path | None  # None: no pyfunc, the files alone
    facts: Mapping[str, str]
    epoch: int


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        said = " ".join(str(error).split())[:300]
        answered = isinstance(error, MlflowException) and error.error_code in _REFUSALS
        raise TrackingError(said, answered) from error


class Tracker:
    """A connection to one MLflow server."""

    def __init__(self, uri: str) -> None:
        # one short try: with MLflow's own retries a dead server blocks a call for four minutes
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "20"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it belongs to our JSON
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ.pop("MLFLOW_RUN_ID", None)  # a parent process's run is none of ours
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)

    # --- writing -------------------------------------------------------------------------------

    def experiment(self, study: str) -> str:
        """The experiment's id; made when there is none, taken back when it was deleted."""
        with _mlflow_errors():
            found = self.client.get_experiment_by_name(study)
            if found is not None:
                if found.lifecycle_stage == "deleted":
                    self.client.restore_experiment(found.experiment_id)
                return str(found.experiment_id)
            # the UI opens on training metrics, not on traces of language models
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(self.client.create_experiment(study, tags=kind))

    def create_run(
        self, experiment_id: str, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> str:
        """Returns the new run's id. tags: ours, without `orchestrator.`."""
        full = {TAG + key: value for key, value in tags.items()}
        if parent is not None:
            full[_PARENT] = parent
        with _mlflow_errors():
            run = self.client.create_run(experiment_id, tags=full, run_name=name)
            return str(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Of a nested mapping every value, under a dotted key."""
        entries = [Param(key, str(value)[:6000]) for key, value in _flat(params).items()]
        with _mlflow_errors():
            self.client.log_batch(run_id, params=entries)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        entries = [RunTag(TAG + key, value[:5000]) for key, value in tags.items()]
        with _mlflow_errors():
            self.client.log_batch(run_id, tags=entries)

    def log_epochs(
        self, run_id: str, epochs: Sequence[Mapping[str, float]], stamps: dict[int, int]
    ) -> None:
        """Each entry holds `epoch` and the metrics of that epoch; step = epoch.

        stamps: epoch → time in ms, filled here. Sent again with the same stamps, because nobody
        knows whether a call that was not answered was heard, a metric stands there once.
        """
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), stamps.setdefault(epoch, now), epoch)
            for entry in epochs
            for epoch in [int(entry["epoch"])]
            for name, value in entry.items()
            if name != "epoch"
        ]
        with _mlflow_errors():
            for start in range(0, len(metrics), _PAGE):
                self.client.log_batch(run_id, metrics=metrics[start : start + _PAGE])

    def last_epoch(self, run_id: str, metric: str = "train/loss") -> int:
        """The last epoch that MLflow has; 0 when it has none."""
        with _mlflow_errors():
            history = self.client.get_metric_history(run_id, metric)
        return max((int(point.step) for point in history), default=0)

    def describe(self, run_id: str, markdown: str) -> None:
        """The text that MLflow shows with a run."""
        with _mlflow_errors():
            self.client.set_tag(run_id, "mlflow.note.content", markdown[:5000])

    def set_status(self, run_id: str, status: str) -> None:
        with _mlflow_errors():
            if status in ("SCHEDULED", "RUNNING"):
                self.client.update_run(run_id, status=status)
            else:
                self.client.set_terminated(run_id, status=status)

    def log_text(self, run_id: str, text: str, file: str) -> None:
        with _mlflow_errors():
            self.client.log_text(run_id, text, file)

    def log_files(self, run_id: str, folder: Path, into: str | None = None) -> None:
        """Every file below a folder, under the same names."""
        with _mlflow_errors():
            self.client.log_artifacts(run_id, str(folder), into)

    def log_model(self, run: TrackedRun, files: ModelFiles) -> str:
        """Log a checkpoint as a model of its run; returns `models:/...`."""
        known = self._logged_model(run, files.name)
        if known is not None:
            return known
        with _mlflow_errors(), tempfile.TemporaryDirectory() as temporary:
            model = self.client.create_logged_model(
                run.experiment_id,
                name=files.name,
                source_run_id=run.run_id,
                tags={TAG + key: value for key, value in files.facts.items()},
            )
            self.client.log_outputs(
                run.run_id, [LoggedModelOutput(model.model_id, step=files.epoch)]
            )
            local = Path(temporary) / "model"
            described = Model(
                artifact_path=model.artifact_location,
                model_uuid=model.model_id,
                run_id=run.run_id,
                model_id=model.model_id,
            )
            if files.code is None:
                self.client.log_model_artifacts(model.model_id, str(files.folder))
            else:
                _save_pyfunc(files, local, described)
                self.client.log_model_artifacts(model.model_id, str(local))
            self.client.finalize_logged_model(model.model_id, "READY")
            return f"models:/{model.model_id}"

    def _logged_model(self, run: TrackedRun, name: str) -> str | None:
        """The run's model of a name, if it is whole; what a dead sender left of it is removed."""
        with _mlflow_errors():
            models = self.client.search_logged_models(
                [run.experiment_id],
                filter_string=f"name = '{name}' AND source_run_id = '{run.run_id}'",
            )
            whole = None
            for model in models:
                if model.status == LoggedModelStatus.READY:
                    whole = f"models:/{model.model_id}"
                else:
                    self.client.delete_logged_model(model.model_id)
            return whole

    # --- reading -------------------------------------------------------------------------------

    def newest_submissions(self) -> dict[str, TrackedRun]:
        """Study → its newest submission, the newest study first; two calls for all of them."""
        with _mlflow_errors():
            experiments = self.client.search_experiments(order_by=["creation_time DESC"])
        names = {item.experiment_id: item.name for item in experiments}
        kind = f"tags.`{TAG}kind` = 'submission'"
        found = self._search(list(names), kind, "attributes.start_time ASC")
        newest = {run.experiment_id: run for run in found}
        return {name: newest[number] for number, name in names.items() if number in newest}

    def _search(self, experiments: list[str], query: str, *order: str) -> list[TrackedRun]:
        found: list[TrackedRun] = []
        token = None
        with _mlflow_errors():
            while True:
                page = self.client.search_runs(
                    experiments, query, max_results=_PAGE, order_by=list(order), page_token=token
                )
                found += [_tracked(run) for run in page]
                token = page.token
                if not token:
                    return found

    def submissions(
        self, study: str, most: int = _PAGE, kind: str = "submission"
    ) -> list[TrackedRun]:
        """Submissions of a study, newest first. kind: `opening` before they have their plan."""
        with _mlflow_errors():
            experiment = self.client.get_experiment_by_name(study)
            if experiment is None:
                return []
            found = self.client.search_runs(
                [experiment.experiment_id],
                filter_string=f"tags.`{TAG}kind` = '{kind}'",
                max_results=most,
                order_by=["attributes.start_time DESC"],
            )
        return [_tracked(run) for run in found]

    def run(self, run_id: str) -> TrackedRun:
        with _mlflow_errors():
            return _tracked(self.client.get_run(run_id))

    def children(self, submission: TrackedRun) -> list[TrackedRun]:
        """The Runs of a submission."""
        return self._search([submission.experiment_id], f"tags.`{_PARENT}` = '{submission.run_id}'")

    def has_lost(self, submission: TrackedRun) -> bool:
        """Whether somebody has deleted one of its Runs."""
        query, gone = f"tags.`{_PARENT}` = '{submission.run_id}'", ViewType.DELETED_ONLY
        with _mlflow_errors():
            return bool(self.client.search_runs([submission.experiment_id], query, gone, 1))

    def tree(self, submission: TrackedRun) -> list[TrackedRun]:
        """A submission's Runs, searches and their trials, and at last itself."""
        children = self.children(submission)
        trials = [t for c in children if c.tags.get("kind") == "search" for t in self.children(c)]
        return [*trials, *children, submission]

    def plan(self, submission: TrackedRun) -> dict[str, Any]:
        """The plan.json that the submission stored."""
        return dict(json.loads(self.text(submission.run_id, "plan.json")))

    def text(self, run_id: str, file: str) -> str:
        """What `log_text` stored. Raises TrackingError where it is not there."""
        with tempfile.TemporaryDirectory() as folder:
            return self.download_file(run_id, file, Path(folder)).read_text(encoding="utf-8")

    def files(self, run_id: str, folder: str) -> list[str]:
        """Paths of a run's artifacts in a folder; none where there is no such folder."""
        with _mlflow_errors():
            return [item.path for item in self.client.list_artifacts(run_id, folder)]

    def download(self, run_id: str, path: str, into: Path) -> Path:
        """A folder of artifacts of a run; empty where there is none."""
        with _mlflow_errors():
            if not self.files(run_id, path):
                return into
            return Path(self.client.download_artifacts(run_id, path, str(into)))

    def download_file(self, run_id: str, path: str, into: Path) -> Path:
        """One artifact of a run. Raises TrackingError where it is not there."""
        with _mlflow_errors():
            return Path(self.client.download_artifacts(run_id, path, str(into)))

    def download_model(self, uri: str, into: Path) -> Path:
        """A logged model's own files, without MLflow's description of it."""
        with _mlflow_errors():
            where = self.client.get_logged_model(uri.removeprefix("models:/")).artifact_location
            path = Path(download_artifacts(where, dst_path=str(into), tracking_uri=self.uri))
        inner = [item for item in path.glob("data/*") if item.is_dir()]
        return inner[0] if inner else path

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """(epoch, value), one an epoch, ascending."""
        with _mlflow_errors():
            points = self.client.get_metric_history(run_id, metric)
        return sorted({int(point.step): float(point.value) for point in points}.items())


def _save_pyfunc(files: ModelFiles, into: Path, described: Model) -> None:
    image = TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))
    mlflow.pyfunc.save_model(
        str(into),
        loader_module="trainables.tasks.predictor",
        data_path=str(files.folder),
        code_paths=[str(files.code)],
        pip_requirements=_MODEL_REQUIREMENTS,
        signature=ModelSignature(inputs=Schema([image])),
        mlflow_model=described,
    )


def _tracked(run: MlflowRun) -> TrackedRun:
    ours = {k.removeprefix(TAG): v for k, v in run.data.tags.items() if k.startswith(TAG)}
    return TrackedRun(
        run.info.run_id, run.info.status, ours, dict(run.data.metrics), run.info.experiment_id
    )


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat
