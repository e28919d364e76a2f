"""Write into MLflow: runs, metrics, artifacts and models. What is there already is kept.

Any call may raise TrackingError; the caller decides when to try again.
"""

import filecmp
import getpass
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.reporting.comparison import State
from orchestrator.rest.mlflow_api import client_errors
from orchestrator.rest.mlflow_pages import MlflowPages
from orchestrator.rest.mlflow_registry import ModelRegistry
from orchestrator.storage.files import replacing
from orchestrator.tracking.mlflow_client import (
    OPEN,
    PAGE,
    MlflowConnection,
    MlflowReader,
    TrackedRun,
)
from orchestrator.tracking.tags import (
    EXPERIMENT_KIND,
    PARENT_RUN,
    Tag,
    source_tags,
    to_mlflow,
)
from trainables.own_code.carried import write_carried

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.models import Model

log = logging.getLogger(__name__)
_DATA = "data/checkpoint"  # where a model that predicts has its checkpoint
_EXAMPLE_SIDE = 8  # px of the picture that MLflow shows as an example of what a model takes
_MODEL = "model.json"  # describes the weights beside it (`trainables.tasks.predictor`)
_MODEL_REQUIREMENTS = (
    "torch torchvision numpy pandas pillow tifffile imagecodecs pydantic scikit-learn".split()
)
# MLflow takes no longer ones
_PARAM_LENGTH, _TAG_LENGTH = 6000, 5000
_MOST = 100  # parameters or tags in one call


@dataclass(frozen=True)
class ModelFiles:
    """A checkpoint to be logged as a model. code: folder of the package that can load it."""

    weights: Path
    others: tuple[Path, ...]  # what is needed beside the weights: their description
    name: str
    code: Path | None  # None: no pyfunc, the files alone
    facts: Mapping[str, str]  # tags of the model
    epoch: int


class MlflowWriter:
    """Writes experiments, runs, metrics and artifacts."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._connection, self._api = connection, connection.api
        self.pages = MlflowPages(connection.api)

    def experiment(self, study: str) -> str:
        """Return the experiment's id; it is created when there is none, restored when deleted."""
        experiment = self._connection.experiment(study)
        if experiment is None:
            # the UI opens on training metrics, not on traces of language models
            tags = _entries({EXPERIMENT_KIND: "custom_model_development"})
            answer = self._api.post("experiments/create", name=study, tags=tags)
            return str(answer["experiment_id"])
        number = str(experiment["experiment_id"])
        if experiment.get("lifecycle_stage") == "deleted":
            self._api.post("experiments/restore", experiment_id=number)
        return number

    def create_run(
        self, experiment_id: str, name: str, tags: Mapping[str, str], parent: str | None = None
    ) -> str:
        """Create a run. Returns its id. tags: ours, without `orchestrator.`."""
        all_tags = to_mlflow(tags) | source_tags(tags, user := _user())
        if parent is not None:
            all_tags[PARENT_RUN] = parent
        answer = self._api.post(
            "runs/create",
            experiment_id=experiment_id,
            user_id=user,
            run_name=name,
            start_time=_now(),
            tags=_entries(all_tags),
        )
        return str(answer["run"]["info"]["run_id"])

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log every value of a nested mapping, under a dotted key."""
        flat = {key: str(value)[:_PARAM_LENGTH] for key, value in _flat(params).items()}
        self._log(run_id, "params", _entries(flat), _MOST)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of ours, given without `orchestrator.`."""
        short = {name: value[:_TAG_LENGTH] for name, value in to_mlflow(tags).items()}
        self._log(run_id, "tags", _entries(short), _MOST)

    def log_inputs(self, run_id: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        """Log which data sets a run reads. datasets: as `dataset_inputs` returns them."""
        self._api.post("runs/log-inputs", run_id=run_id, datasets=list(datasets))

    def log_epochs(
        self, run_id: str, epochs: Sequence[Mapping[str, float]], stamps: dict[int, int]
    ) -> None:
        """Log the metrics of epochs: each entry holds `epoch` and its metrics; step = epoch.

        stamps: epoch → time in ms, filled here, never later than that of a later epoch. A call
        without an answer may have been carried out, so it is sent again with the same stamps:
        MLflow then keeps each metric once.
        """
        _stamp(sorted({int(entry["epoch"]) for entry in epochs}), stamps)
        metrics = [
            {
                "key": name,
                "value": _number(float(value)),
                "timestamp": stamps[epoch],
                "step": epoch,
            }
            for entry in epochs
            for epoch in [int(entry["epoch"])]
            for name, value in entry.items()
            if name != "epoch"
        ]
        self._log(run_id, "metrics", metrics, PAGE)

    def _log(self, run_id: str, kind: str, entries: Sequence[Any], most: int) -> None:
        """kind: `params`, `tags` or `metrics`. most: how many one call may hold."""
        for start in range(0, len(entries), most):
            part: dict[str, Any] = {kind: entries[start : start + most]}
            self._api.post("runs/log-batch", run_id=run_id, **part)

    def set_status(self, run_id: str, status: str) -> None:
        """Set MLflow's status. status: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""
        ended = {} if status in OPEN else {"end_time": _now()}
        self._api.post("runs/update", run_id=run_id, status=str(status), **ended)

    def kill_if_open(self, run: TrackedRun, reason: str) -> None:
        """Set a run that has not ended to KILLED, with the reason."""
        if run.status in OPEN:
            self.set_tags(run.run_id, {Tag.REASON: reason})
            self.set_status(run.run_id, State.KILLED)

    def log_text(self, run_id: str, text: str, file: str) -> None:
        """Log a text as an artifact."""
        self._connection.artifacts.upload_text(run_id, text, file)

    def log_files(self, run_id: str, folder: Path, into: str | None = None) -> None:
        """Log every file below a folder as an artifact, under the same names."""
        self._connection.artifacts.upload(run_id, folder, into)


class ModelUploader:
    """Logs checkpoints as models of their runs, with MLflow's own client: it takes seconds to load,
    and is loaded with the first model.

    Weights are not stored a second time where the server keeps artifacts in a folder of this home:
    they get a second name there, a hard link. Either name can go. A new file under one name leaves
    the other as it is, and MLflow's server writes new files only.
    """

    def __init__(self, connection: MlflowConnection, artifacts: Path | None) -> None:
        """artifacts: as in `Tracker`."""
        self._api, self._artifacts = connection.api, artifacts

    def log(self, run: TrackedRun, files: ModelFiles) -> str:
        """Log a checkpoint as a model of its run, unless it is there. Returns `models:/...`."""
        inner = f"{_DATA}/" if files.code is not None else ""
        with client_errors(), tempfile.TemporaryDirectory() as temporary:
            model = self._logged(run, files.name)
            if model is not None:  # trained again, its weights are a new file
                self._link(model, inner, files.weights)
                return f"models:/{model.model_id}"
            from mlflow.entities import LoggedModelOutput
            from mlflow.models import Model

            client = self._api.client
            model = client.create_logged_model(
                run.experiment_id,
                name=files.name,
                source_run_id=run.run_id,
                tags=to_mlflow(files.facts),
            )
            client.log_outputs(run.run_id, [LoggedModelOutput(model.model_id, step=files.epoch)])
            folder = _linked(Path(temporary, Path(_DATA).name), files.others)
            if files.code is not None:
                description = Model(
                    artifact_path=model.artifact_location,
                    model_uuid=model.model_id,
                    run_id=run.run_id,
                    model_id=model.model_id,
                )
                _save_pyfunc(files, folder, Path(temporary, "model"), description)
                folder = Path(temporary, "model")
            client.log_model_artifacts(model.model_id, str(folder))
            if not self._link(model, inner, files.weights):
                whole = _linked(Path(temporary, "weights", inner), [files.weights])
                client.log_model_artifacts(model.model_id, str(whole), inner.rstrip("/") or None)
            client.finalize_logged_model(model.model_id, "READY")
            return f"models:/{model.model_id}"

    def _link(self, model: "LoggedModel", inner: str, weights: Path) -> bool:
        """Give weights a second name among the artifacts of a model. inner: the folder within.
        Returns whether they have it: not where artifacts lie elsewhere, or on another disk."""
        root = model.artifact_location.removeprefix("mlflow-artifacts:/")
        if self._artifacts is None or root == model.artifact_location:
            return False
        target = self._artifacts / root / inner / weights.name
        sibling = weights.with_name(_MODEL)
        try:
            # that the description was sent to this folder shows whose it is
            if not filecmp.cmp(sibling, target.with_name(_MODEL), shallow=False):
                return False
            with replacing(target) as temporary:
                os.link(weights, temporary)
        except OSError as error:
            log.info("%s is copied to MLflow: %s", weights, error)
            return False
        return True

    def _logged(self, run: TrackedRun, name: str) -> "LoggedModel | None":
        """Return the run's model of a name, if it is whole; what a dead process left of it is
        removed."""
        from mlflow.entities import LoggedModelStatus

        models = self._api.client.search_logged_models(
            [run.experiment_id],
            filter_string=f"name = '{name}' AND source_run_id = '{run.run_id}'",
        )
        whole = None
        for model in models:
            if model.status == LoggedModelStatus.READY:
                whole = model
            else:
                self._api.client.delete_logged_model(model.model_id)
        return whole


class Tracker:
    """One MLflow server: `reader`, `writer` and `models` share its connection."""

    def __init__(self, uri: str, artifacts: Path | None = None) -> None:
        """artifacts: the folder in which the home's own server keeps artifacts, if this may be
        that server."""
        self.connection = MlflowConnection(uri)
        self.uri, self.artifacts = uri, artifacts
        self.reader = MlflowReader(self.connection)
        self.writer = MlflowWriter(self.connection)
        self.registry = ModelRegistry(self.connection.api)
        self.models = ModelUploader(self.connection, artifacts)


def _linked(folder: Path, files: Iterable[Path]) -> Path:
    """Make a folder of symbolic links to files, which MLflow's client sends as the files."""
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name).symlink_to(file)
    return folder


def _save_pyfunc(files: ModelFiles, folder: Path, into: Path, description: "Model") -> None:
    """Write a model that takes images, (N, H, W, 3) uint8 or other channels, and loads itself with
    its own code; all but its weights. folder: has what lies beside them."""
    import mlflow
    import numpy as np
    from mlflow.models.signature import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    described = json.loads((folder / _MODEL).read_text(encoding="utf-8"))
    channels = described.get("reading", {}).get("channels", 3)
    own = write_carried(described.get("code", {}), into.with_name("own_code"))
    kind = "uint8" if channels == 3 else "float32"
    image = TensorSpec(np.dtype(kind), (-1, -1, -1, channels))
    mlflow.pyfunc.save_model(
        str(into),
        loader_module="trainables.tasks.predictor",
        data_path=str(folder),
        code_paths=[str(files.code), *map(str, own)],
        pip_requirements=[*_MODEL_REQUIREMENTS, *described.get("requirements", [])],
        signature=ModelSignature(inputs=Schema([image])),
        input_example=np.zeros((1, _EXAMPLE_SIDE, _EXAMPLE_SIDE, channels), kind),
        mlflow_model=description,
    )
    description.model_size_bytes += files.weights.stat().st_size
    description.save(str(into / "MLmodel"))


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            flat[key] = value
    return flat


def _entries(values: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags or parameters as MLflow's API takes them."""
    return [{"key": key, "value": value} for key, value in values.items()]


def _number(value: float) -> float | str:
    """Return a value as JSON can hold it: those that are not finite are texts."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _user() -> str:
    """Return the name of the user whose process writes."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _now() -> int:
    """Return the time in ms."""
    return int(time.time() * 1000)


def _stamp(epochs: Sequence[int], stamps: dict[int, int]) -> None:
    """Give epochs (ascending) times in ms, where they have none, so that no epoch is later than the
    one after it."""
    now = _now()
    for epoch in reversed(epochs):
        later = (stamp for other, stamp in stamps.items() if other > epoch)
        stamps.setdefault(epoch, min(later, default=now))
    for epoch in epochs:
        earlier = (stamp for other, stamp in stamps.items() if other < epoch)
        stamps[epoch] = max(stamps[epoch], max(earlier, default=0))
