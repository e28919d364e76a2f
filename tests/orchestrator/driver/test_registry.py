"""The best model of each stage, registered by name: chosen on validation, once, with its alias."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from orchestrator.driver.registry import register_best
from orchestrator.planning.plan import FORMAT
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.tags import Kind, Tag
from tests.mlflow_server import mlflow_server
from tests.orchestrator.tracking.test_run_states import planned

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

COMPARE = {"metric": "test/accuracy", "stages": ["full"], "rows": "stage", "plots": []}


class Registered:
    """A version of a registered model, as MLflow has it."""

    def __init__(self, version: "ModelVersion") -> None:
        self.version, self.run_id = int(version.version), version.run_id
        self.description = str(version.description)
        self.model_id = str(version.source).split("/")[-2]  # no answer names it but by its place


class Submitted:
    """A submission whose Runs have ended, on a server and in a store of its own."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.tracker, self.store = Tracker(uri), Store(folder)
        # in a process that serves MLflow too, a client takes the registry of that server
        self.client = MlflowClient(uri, registry_uri=uri)
        self.experiment = self.tracker.writer.experiment("small")
        tags: dict[str, str] = {Tag.KIND: Kind.SUBMISSION}
        self.run_id = self.tracker.writer.create_run(self.experiment, "submission", tags)
        self.runs: list[Run] = []

    def add(self, run: Run, values: list[float], test: float = 0.0, **tags: str) -> str:
        """Add a Run that was finished with a model. values: what selects, epoch by epoch. Returns
        the id of its model."""
        self.runs.append(run)
        best = max if run.select != "val/loss" else min
        history = [{"epoch": n, run.select: value} for n, value in enumerate(values, 1)]
        chosen = values.index(best(values)) + 1
        writer = self.store.run(run.key).writer(self.store.run(run.key).begin_attempt())
        weights = {"weights.pt": lambda path: path.write_bytes(b"w")}
        writer.save(chosen, weights, {"history": history[:chosen]})
        writer.finish({"history": history, "best_epoch": chosen, "facts": {},
                       "test": {"test/accuracy": test}})  # fmt: skip
        named: dict[str, str] = {Tag.LABEL: run.label, Tag.SEED: str(run.seed),
                                 Tag.KIND: Kind.RUN, Tag.RUN_KEY: run.key}  # fmt: skip
        run_id = self.tracker.writer.create_run(
            self.experiment, run.name, named | tags, self.run_id
        )
        self.tracker.writer.set_status(run_id, State.FINISHED)
        if Tag.REUSED_FROM in tags:
            return ""
        return self.model(run, run_id)

    def model(self, run: Run, run_id: str) -> str:
        model = self.client.create_logged_model(
            self.experiment, name=f"{run.stage}-best", source_run_id=run_id
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        address = {Tag.MODEL_BEST: f"models:/{model.model_id}"}
        self.tracker.writer.set_tags(run_id, address)
        return str(model.model_id)

    def register(self) -> dict[str, "Registered"]:
        """Register the best ones. Returns name → what is under the alias."""
        plan = {"format": FORMAT, "study": "small", "question": "?", "compare": COMPARE,
                "reference": {}, "runs": [dict(vars(run)) for run in self.runs]}  # fmt: skip
        self.tracker.writer.log_text(self.run_id, json.dumps(plan), "plan.json")
        register_best(self.tracker, self.store, self.tracked)
        names = [one.name for one in self.client.search_registered_models()]
        return {
            name: Registered(self.client.get_model_version_by_alias(name, "best")) for name in names
        }

    @property
    def tracked(self) -> TrackedRun:
        return self.tracker.reader.run(self.run_id)


@pytest.fixture
def submitted(mlflow_uri: str, tmp_path: Path) -> Submitted:
    return Submitted(mlflow_uri, tmp_path / "store")


def test_the_best_on_validation_of_all_labels_and_seeds_is_registered(
    submitted: Submitted,
) -> None:
    submitted.add(planned("full", seed=0), [0.5, 0.7], test=0.9)
    best = submitted.add(planned("full", seed=1, key="f1"), [0.8, 0.6], test=0.1)
    submitted.add(planned("full", label="full[lr=0.1]", key="f2"), [0.79], test=1.0)
    other = submitted.add(planned("late"), [0.2])
    found = submitted.register()
    assert found.keys() == {"small.full", "small.late"}
    assert found["small.full"].model_id == best
    assert found["small.late"].model_id == other
    described = found["small.full"].description
    assert described.startswith("full seed 1, val/accuracy 0.8\n")
    assert "mlflow models serve -m models:/small.full@best" in described
    assert submitted.tracker.uri in described


def test_where_less_is_better_the_lowest_is_registered(submitted: Submitted) -> None:
    submitted.add(planned("full", seed=0, select="val/loss"), [0.9, 0.4])
    best = submitted.add(planned("full", seed=1, key="f1", select="val/loss"), [0.3, 0.8])
    assert submitted.register()["small.full"].model_id == best


def test_what_did_not_finish_or_does_not_predict_is_not_registered(submitted: Submitted) -> None:
    submitted.add(planned("byol", predicts=False), [0.9])
    submitted.add(planned("failed"), [0.9])
    submitted.store.run("failed-0").forget()
    submitted.runs.append(planned("waits"))
    assert submitted.register() == {}


def test_the_same_model_is_registered_once_and_a_better_one_takes_its_place(
    submitted: Submitted,
) -> None:
    submitted.add(planned("full", seed=0), [0.5])
    for _ in range(2):
        assert submitted.register()["small.full"].version == 1
    better = submitted.add(planned("full", seed=1, key="f1"), [0.6])
    version = submitted.register()["small.full"]
    assert (version.version, version.model_id) == (2, better)
    assert len(submitted.client.search_model_versions("name = 'small.full'")) == 2


def test_of_a_reused_run_the_model_of_the_original_is_registered(submitted: Submitted) -> None:
    run = planned("full")
    original = submitted.tracker.writer.create_run(submitted.experiment, "original", {})
    model = submitted.model(run, original)
    submitted.add(run, [0.5], **{Tag.REUSED_FROM: original, Tag.KIND: Kind.REUSED})
    version = submitted.register()["small.full"]
    assert (version.model_id, version.run_id) == (model, original)


def test_a_server_that_does_not_answer_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mlflow_server(tmp_path) as uri:
        submitted = Submitted(uri, tmp_path / "store")
        tracked = submitted.tracked
    with caplog.at_level(logging.WARNING, "orchestrator"):
        register_best(submitted.tracker, submitted.store, tracked)
    assert "the best models are not registered" in caplog.text
