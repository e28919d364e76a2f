"""The MLflow run of a submission as its driver closes it. With MLflow's own database, no server."""

import json
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.config.errors import Refused
from orchestrator.config.study_loader import from_mapping
from orchestrator.driver.submission import close_submission, log_plan, open_submission
from orchestrator.execution.ray_jobs import Job
from orchestrator.planning.plan import FORMAT
from orchestrator.planning.prepare import prepare
from orchestrator.reporting.comparison import State
from orchestrator.storage.home import LOCAL, Home
from orchestrator.tracking.mlflow_client import TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from tests.orchestrator.tracking.test_run_states import planned

STUDY = {
    "study": "broken", "question": "?", "data": {"digits": {"type": "digits", "limit": 60}},
    "stages": {"full": {"trainable": "classify", "config": {"dataset": "digits"}}},
}  # fmt: skip
RUNS = (planned("A"), planned("B"))
COMPARE = {"metric": "test/accuracy", "stages": ["A", "B"], "rows": "stage", "plots": []}


@pytest.fixture
def tracker(mlflow_uri: str) -> Tracker:
    return Tracker(mlflow_uri)


@pytest.fixture
def submission(tracker: Tracker) -> TrackedRun:
    """One of two Runs that were tried before and wait for their turn."""
    writer = tracker.writer
    experiment = writer.experiment("small")
    run_id = writer.create_run(experiment, "submission", {"kind": "submission"})
    plan = {"format": FORMAT, "study": "small", "question": "?", "compare": COMPARE,
            "reference": {}, "runs": [dict(vars(run)) for run in RUNS]}  # fmt: skip
    writer.log_text(run_id, json.dumps(plan), "plan.json")
    for run in RUNS:
        tags = {"label": run.label, "seed": "0", "kind": "run", "run_key": run.key}
        child = writer.create_run(experiment, run.name, tags, run_id)
        writer.set_status(child, "SCHEDULED")
    return tracker.reader.run(run_id)


def test_a_run_that_did_not_start_again_is_killed_with_the_reason(
    tracker: Tracker, submission: TrackedRun
) -> None:
    (a,) = [run for run in tracker.reader.children(submission) if run.tags["label"] == "A"]
    tracker.writer.set_status(a.run_id, State.FINISHED)
    states = {"A-0": State.FINISHED, "B-0": State.BLOCKED}
    assert close_submission(tracker, submission, states, sent=True) == 1
    runs = {run.tags["label"]: run for run in tracker.reader.children(submission)}
    assert {label: run.status for label, run in runs.items()} == {"A": "FINISHED", "B": "KILLED"}
    assert runs["B"].tags["reason"] == "not started in this submission"
    closed = tracker.reader.run(submission.run_id)
    assert closed.status == "FAILED"
    assert closed.tags["reason"] == "1 of 2 Runs and searches did not finish"


def test_a_submission_stays_open_while_mlflow_lacks_results(
    tracker: Tracker, submission: TrackedRun
) -> None:
    with pytest.raises(Refused, match="MLflow lacks some results"):
        close_submission(tracker, submission, {"A-0": State.FINISHED}, sent=False)
    assert tracker.reader.run(submission.run_id).status == "RUNNING"


def test_what_the_data_holds_and_what_was_passed_over_is_stored(
    tracker: Tracker, submission: TrackedRun, tmp_path: Path
) -> None:
    number = 0
    for name in ("Bed", "bed", "mug"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(8):
            number += 1
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "set" / name / f"{i}.png")
        (tmp_path / "set" / name / "notes.txt").touch()
    study = {
        "study": "small",
        "data": {"mine": {"type": "image_folder", "path": str(tmp_path / "set"), "size": 8}},
        "stages": {"A": {"trainable": "classify", "config": {"dataset": "mine"}}},
    }
    prepared = prepare(from_mapping(study), None, Home(tmp_path / "home").create())
    log_plan(tracker.writer, submission.experiment_id, submission.run_id, prepared)
    facts = json.loads(tracker.reader.text(submission.run_id, "data.json"))["mine"]
    assert facts["classes"] == ["Bed", "bed", "mug"]
    assert sum(facts["images"].values()) == 24
    assert len(facts["test_counts"]) == 3
    assert sum(facts["test_counts"]) == facts["images"]["test"]
    assert facts["passed_over"] == [{"kind": ".txt", "reason": "not an image", "files": 3}]
    assert tracker.reader.run(submission.run_id).tags["data_remarks"] == (
        "data.mine: warning: classes differ by case, spaces or Unicode form alone: 'Bed' and "
        "'bed': give them one name if they mean the same\n"
        "data.mine: passed over: 3 .txt (not an image)"
    )


def test_a_submission_that_was_broken_off_while_it_opened_goes_on_with_its_run(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further try would leave a dead MLflow run otherwise."""
    study = from_mapping(STUDY)
    home = Home(tmp_path / "home").create()
    prepared = prepare(study, None, home)
    job = Job("job-1", study.mapping, "", None, str(home.root), LOCAL, tracker.uri, "", None)
    log_text = tracker.writer.log_text
    monkeypatch.setattr(tracker.writer, "log_text", _refuse)
    for _ in range(2):
        with pytest.raises(TrackingError):
            open_submission(tracker, prepared, job, home)
    monkeypatch.setattr(tracker.writer, "log_text", log_text)
    opened = open_submission(tracker, prepared, job, home)
    assert (opened.status, opened.tags["kind"]) == ("RUNNING", "submission")
    experiment = tracker.writer.experiment(study.name)
    runs = tracker.connection.api.client.search_runs([experiment])
    assert [run.info.run_id for run in runs] == [opened.run_id]


def _refuse(*_: object) -> None:
    raise TrackingError("INTERNAL_ERROR: the bucket is away", answered=True, code="INTERNAL_ERROR")
