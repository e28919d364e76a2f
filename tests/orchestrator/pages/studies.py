"""A study of four labels as it stands in MLflow once it has finished, for tests of what its pages
show: made by what writes into MLflow, without any training."""

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.planning.plan import FORMAT
from orchestrator.planning.run import Run
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.tags import Kind, Tag

LABELS = ("late_rotation", "late_random", "full_rotation", "full_random")
EPOCHS = 3


def run_of(label: str, seed: int) -> Run:
    """A Run of digits, without a parent."""
    return Run(
        stage=label, label=label, seed=seed, key=f"{label}-{seed}", parent=None,
        parent_label="rotation" if label.endswith("_rotation") else None, trainable="classify",
        select="val/accuracy", predicts=True, artifacts="",
        config={"dataset": "digits", "epochs": EPOCHS}, dataset="d1", weights=None, code="c1",
    )  # fmt: skip


RUNS = [run_of(label, seed) for label in LABELS for seed in (0, 1)]
PLAN: dict[str, Any] = {
    "format": FORMAT,
    "study": "digits",
    "question": "Does rotation pretraining help?",
    "compare": {
        "metric": "test/accuracy", "stages": list(LABELS), "rows": "stage", "plots": ["bars"],
    },
    "reference": {},
    "searches": [],
    "runs": [dict(vars(run)) for run in RUNS],
}  # fmt: skip


def finished_study(tracker: Tracker, plan: Mapping[str, Any] = PLAN) -> TrackedRun:
    """Write the study, or one of another plan with the same Runs. Returns its submission."""
    writer = tracker.writer
    study = str(plan["study"])
    experiment = writer.experiment(study)
    tags: dict[str, str] = {Tag.KIND: Kind.SUBMISSION, Tag.STUDY: study, Tag.JOB: f"{study}-1"}
    submission = writer.create_run(experiment, f"submission {study}-1", tags)
    writer.log_text(submission, json.dumps(plan), "plan.json")
    for number, run in enumerate(RUNS):
        tags = {
            Tag.KIND: Kind.RUN, Tag.LABEL: run.label, Tag.STAGE: run.stage, Tag.RUN_KEY: run.key,
            Tag.SEED: str(run.seed), Tag.EPOCHS: str(EPOCHS),
            Tag.STARTS_FROM: run.parent_label or "random weights",
        }  # fmt: skip
        run_id = writer.create_run(experiment, run.name, tags, submission)
        writer.log_params(run_id, {"seed": run.seed})
        epochs = [
            {
                "epoch": n,
                "train/loss": 2 / n + 0.1 * number,
                "val/accuracy": 0.2 * n + 0.01 * number,
            }
            for n in range(1, EPOCHS + 1)
        ]
        writer.log_epochs(run_id, [*epochs, {"epoch": EPOCHS, "test/accuracy": accuracy(run)}], {})
        writer.set_status(run_id, "FINISHED")
    view = writer.pages.share_view(experiment, submission, plan)
    writer.set_tags(submission, {Tag.VIEW: view})
    writer.set_status(submission, "FINISHED")
    return tracker.reader.run(submission)


def accuracy(run: Run) -> float:
    """The test figure of a Run: 0.8 for the first label, 0.04 more for each next; the seeds lie
    0.01 to either side."""
    return 0.8 + 0.04 * LABELS.index(run.label) + (0.01 if run.seed else -0.01)
