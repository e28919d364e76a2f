"""How long do plan, status and compare take where there are many Runs? 1,000 and 10,000 finished
ones, written straight into MLflow's database as the product has them."""

import contextlib
import json
import shutil
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import yaml

from orchestrator.config.study_loader import read
from orchestrator.driver.submission import close_submission
from orchestrator.planning.plan import to_plain
from orchestrator.planning.prepare import prepare
from orchestrator.planning.run import Run
from orchestrator.storage.home import Home
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.tags import Tag, to_mlflow
from tests.benchmarks.turns import Line, seconds, shown
from tests.integration.command import Command

RATES, MANY = 100, (1_000, 10_000)
ANEW = 1_000  # Runs at most of which every figure is drawn in every turn
_COLUMNS = {  # of MLflow's tables that hold a run
    "runs": "run_uuid name source_type source_name entry_point_name user_id status start_time "
    "end_time source_version lifecycle_stage artifact_uri experiment_id",
    "tags": "key value run_uuid",
    "params": "key value run_uuid",
    "metrics": "key value timestamp step is_nan run_uuid",
    "latest_metrics": "key value timestamp step is_nan run_uuid",
}
FACTS = {  # what the product says of a Run beside what it is
    "attempt": "1", "best_epoch": "1", "epochs": "1", "opened": "true", "maps": "plots/",
    "plots": "plots/", "code_version": "c" * 16, "dataset": "d" * 16, "trainable": "classify",
    "parent_keys": "none", "model_best": "models:/m-" + "0" * 32,
    "model_last": "models:/m-" + "1" * 32, "precision": "float32, 1 thread",
    "weight_transfer": "random weights", "git_commit": "0" * 40,
    "progress": json.dumps({"done": 1.0, "total": 1, "unit": "epochs",
                            "loss": 0.3, "images_per_s": 1234.5,
                            "seconds_left": 0.0, "attempt": 1, "time": 0.0, "facts": {}}),
}  # fmt: skip


def measure(turns: int) -> list[Line]:
    lines = []
    for count in MANY:
        command = Command(Path(tempfile.mkdtemp(prefix="bench-")))
        try:
            lines += _measure(command, count, turns)
        finally:
            command.run("down")
            shutil.rmtree(command.folder)
    return lines


def _measure(command: Command, count: int, turns: int) -> list[Line]:
    study = _study(command.folder, count)
    assert command.run("up").returncode == 0
    tracker = Tracker(command.status()["mlflow"]["tracking_uri"])
    submission = _fill(Home(command.home.resolve()), study, tracker)
    works = {"plan": ("plan", study), "status": ("status",), "compare": ("compare", study)}

    def work(*arguments: str) -> None:
        result = command.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr

    def search() -> None:
        assert len(tracker.reader.children(submission)) == count

    def anew() -> None:
        tracker.writer.set_tags(submission.run_id, {Tag.COMPARISON: ""})
        work("compare", study)

    timed = {name: lambda a=a: work(*a) for name, a in works.items()}  # type: ignore[misc]
    others = {"MLflow's own search for the Runs": search}
    if count <= ANEW:
        others["`compare` when a figure has changed"] = anew
    found = seconds(timed | others, turns)
    names = {name: f"`{name}`" for name in works} | {name: name for name in others}
    goals = {"status": "≤ 1 s", "compare": "≤ 1 s"}
    return [
        Line(f"{said}, {count:,} Runs", shown(found[name]), goals.get(name, ""), turns)
        for name, said in names.items()
    ]


def _study(folder: Path, count: int) -> str:
    """A file: one stage, a hundred learning rates, as many seeds as it takes."""
    path = folder / "many.yaml"
    config = {"dataset": "digits", "epochs": 1}
    stage = {"trainable": "classify", "config": config,
             "grid": {"lr": [0.001 * (k + 1) for k in range(RATES)]}}  # fmt: skip
    plots = ["bars", "curves", "loss"] if count <= ANEW else []  # those of 10,000 take minutes
    study = {"study": "many", "question": "How long does it take?", "data": {"digits": "digits"},
             "stages": {"A": stage}, "seeds": list(range(count // RATES)),
             "compare": {"metric": "test/accuracy", "plots": plots}}  # fmt: skip
    path.write_text(yaml.safe_dump(study))
    return str(path)


def _fill(home: Home, file: str, tracker: Tracker) -> TrackedRun:
    """A submission whose Runs have all finished, closed as its driver does it."""
    study = read(file)
    prepared = prepare(study, None, home)
    experiment = tracker.writer.experiment(study.name)
    tags = {"study": study.name, "kind": "submission", "home": home.name, "plan": "0" * 16,
            "job": "gone"}  # fmt: skip
    parent = tracker.writer.create_run(experiment, "submission", tags)
    tracker.writer.log_text(parent, json.dumps(to_plain(study, prepared.runs)), "plan.json")
    _add_runs(home.root / "mlflow.db", experiment, parent, prepared.runs)
    ends = {run.key: "FINISHED" for run in prepared.runs}
    close_submission(tracker, tracker.reader.run(parent), ends, sent=True)
    return tracker.reader.run(parent)


def _add_runs(database: Path, experiment: str, parent: str, runs: Sequence[Run]) -> None:
    """Write finished Runs straight into the server's database: it takes 26 ms a call."""
    rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in _COLUMNS}
    now = int(time.time() * 1000)
    for number, run in enumerate(runs):
        run_id = uuid.uuid4().hex
        artifacts = f"mlflow-artifacts:/{experiment}/{run_id}/artifacts"
        rows["runs"].append((run_id, run.name, "UNKNOWN", "", "", "unknown", "FINISHED", now, now,
                             "", "active", artifacts, int(experiment)))  # fmt: skip
        tags = {"stage": run.stage, "label": run.label, "seed": str(run.seed), "kind": "run",
                "run_key": run.key} | FACTS  # fmt: skip
        named = to_mlflow(tags) | {"mlflow.parentRunId": parent, "mlflow.runName": run.name}
        rows["tags"] += [(key, value, run_id) for key, value in named.items()]
        rows["params"] += [(key, str(value), run_id) for key, value in run.config.items()]
        accuracy = 0.5 + number / 40_000
        metrics = {"train/loss": 0.3, "val/loss": 0.4, "val/accuracy": accuracy,
                   "test/loss": 0.4, "test/accuracy": accuracy}  # fmt: skip
        values = [(key, value, now, 1, False, run_id) for key, value in metrics.items()]
        rows["metrics"] += values
        rows["latest_metrics"] += values
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for table, columns in _COLUMNS.items():
            places = ", ".join("?" * len(columns.split()))
            names = ", ".join(columns.split())
            connection.executemany(f"insert into {table} ({names}) values ({places})", rows[table])
