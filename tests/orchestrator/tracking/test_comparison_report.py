"""A comparison is written when its figures or its code have changed; a large submission that has
finished is read from one file."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.server import ARTIFACTS_DESTINATION_ENV_VAR

from orchestrator.driver.submission import close_submission
from orchestrator.planning.plan import FORMAT
from orchestrator.tracking import comparison_report as report
from orchestrator.tracking import run_states as results
from orchestrator.tracking.comparison_report import find_answer, stored_answer, write_comparison
from orchestrator.tracking.mlflow_client import MlflowReader, TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission, load
from orchestrator.tracking.tags import Tag
from tests.mlflow_server import mlflow_server
from tests.orchestrator.tracking.test_run_states import planned

B = planned("B")
RUNS = (planned("A"), B, replace(B, stage="C", label="C"))  # C is the same training as B
SEARCH = {"stage": "S", "after": None, "behind": [], "count": 2, "metric": "val/accuracy"}
PLAN = {
    "format": FORMAT,
    "study": "small",
    "question": "Does it stand?",
    "compare": {
        "metric": "test/accuracy",
        "stages": ["A", "B", "C"],
        "rows": "stage",
        "plots": ["bars", "curves", "loss"],
    },
    "reference": {"A": 0.5},
    "searches": [SEARCH],
    "runs": [dict(vars(run)) for run in RUNS],
}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield Tracker(uri)


@pytest.fixture
def submission(tracker: Tracker, request: pytest.FixtureRequest) -> Submission:
    """A has finished after two epochs; B, C and the search wait."""
    experiment = tracker.writer.experiment(request.node.name)
    run_id = tracker.writer.create_run(experiment, "submission", {"kind": "submission"})
    tracker.writer.log_text(run_id, json.dumps(PLAN), "plan.json")
    tags = {"run_key": "A-0", "label": "A", "seed": "0", "kind": "run", "epochs": "2"}
    a = tracker.writer.create_run(experiment, "A", tags, run_id)
    epochs = [{"epoch": n, "val/loss": 1 / n, "val/accuracy": 0.3 * n} for n in (1, 2)]
    tracker.writer.log_epochs(a, [*epochs, {"epoch": 2, "test/accuracy": 0.625}], {})
    tracker.writer.set_status(a, "FINISHED")
    return load(tracker.reader, tracker.reader.run(run_id))


def now(tracker: Tracker, submission: Submission) -> Submission:
    return load(tracker.reader, tracker.reader.run(submission.tracked.run_id))


def written(tracker: Tracker, submission: Submission, folder: Path) -> str:
    path = tracker.reader.download_file(submission.tracked.run_id, "tables/comparison.csv", folder)
    return path.read_text("utf-8")


def folder_of(tracker: Tracker, submission: Submission) -> Path:
    """Return the folder of a submission's artifacts."""
    info = tracker.connection.api.client.get_run(submission.tracked.run_id).info
    artifacts = os.environ[ARTIFACTS_DESTINATION_ENV_VAR]
    return Path(artifacts, info.artifact_uri.removeprefix("mlflow-artifacts:/"))


def overwrite(tracker: Tracker, submission: Submission, folder: Path) -> None:
    """Replace the stored table with a text that no comparison gives."""
    (folder / "comparison.csv").write_text("mine", "utf-8")
    tracker.writer.log_files(submission.tracked.run_id, folder, "tables")


def test_tables_and_figures_are_artifacts_of_the_submission(
    tracker: Tracker, submission: Submission, tmp_path: Path
) -> None:
    write_comparison(tracker, submission)
    run_id = submission.tracked.run_id
    tables = ["tables/answer.json", "tables/comparison.csv", "tables/comparison.md"]
    plots = ["plots/bars.png", "plots/curves.png", "plots/loss.png"]
    assert sorted(tracker.reader.files(run_id, "tables")) == tables
    assert sorted(tracker.reader.files(run_id, "plots")) == plots
    header, a, b, _ = written(tracker, submission, tmp_path).splitlines()
    assert header.startswith("kind,label,minus,stage,metric,n,mean,std,low,high,reference")
    assert a.startswith("row,A,,A,test/accuracy,1,0.625,,,,0.5")
    assert b.startswith("row,B,,B,test/accuracy,0,,")


def test_what_stands_is_written_again_only_when_something_has_changed(
    tracker: Tracker, submission: Submission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()

    def rewrites() -> bool:
        overwrite(tracker, submission, folder)
        write_comparison(tracker, now(tracker, submission))
        return written(tracker, submission, tmp_path) != "mine"

    assert rewrites()
    assert not rewrites()
    run_id = str(submission.runs[0].run_id)
    tracker.writer.set_tags(run_id, {Tag.FIGURES: "plots/"})  # its pictures are there now
    assert rewrites()
    tracker.writer.log_epochs(run_id, [{"epoch": 2, "test/accuracy": 0.75}], {})
    assert rewrites()
    tags = {"run_key": "B-0", "label": "B", "seed": "0", "kind": "run"}
    tracker.writer.create_run(
        submission.tracked.experiment_id, "B", tags, submission.tracked.run_id
    )
    assert rewrites()
    monkeypatch.setattr(report, "tree_version", lambda: "another")
    assert rewrites()
    assert not rewrites()


@pytest.mark.parametrize("deleted", ["comparison.*", "comparison.csv", "answer.json", "bars.*"])
def test_a_comparison_that_was_deleted_is_written_again(
    tracker: Tracker, submission: Submission, deleted: str
) -> None:
    write_comparison(tracker, submission)
    for path in folder_of(tracker, submission).rglob(deleted):
        path.unlink()
    write_comparison(tracker, now(tracker, submission))
    assert len(tracker.reader.files(submission.tracked.run_id, "tables")) == 3
    assert len(tracker.reader.files(submission.tracked.run_id, "plots")) == 3


def finish(tracker: Tracker, submission: Submission, many: int = 3) -> Submission:
    """Let the rest finish, and close the submission as its driver does. many: Runs from which on
    a file is stored."""
    for name, kind in {"B": "run", "search S": "search"}.items():
        tags = {"run_key": f"{name}-0", "label": name, "seed": "0", "kind": kind}
        tags["stage"] = name[-1]
        tags["progress"] = json.dumps({"counts": {"FINISHED": 2}} if kind == "search" else {})
        experiment, parent = submission.tracked.experiment_id, submission.tracked.run_id
        run_id = tracker.writer.create_run(experiment, name, tags, parent)
        tracker.writer.log_epochs(run_id, [{"epoch": 2, "test/accuracy": float("nan")}], {})
        tracker.writer.set_status(run_id, "FINISHED")
    ends = {"A": "FINISHED", "B": "FINISHED", "S": "FINISHED"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "_MANY", many)
        assert close_submission(tracker, submission.tracked, ends, sent=True) == 0
    return now(tracker, submission)


class NoSearch(MlflowReader):
    """Raises when children are searched for."""

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        raise AssertionError("asked for what is in a file")


def test_a_finished_submission_is_read_from_one_file(
    tracker: Tracker, submission: Submission
) -> None:
    whole = finish(tracker, submission)
    found = load(NoSearch(tracker.connection), whole.tracked)
    tracker.writer.set_tags(whole.tracked.run_id, {Tag.FINISHED: ""})
    asked = now(tracker, whole)
    assert found.finished and [item.state for item in found.runs] == ["FINISHED"] * 3
    assert repr(found.runs) == repr(asked.runs)  # nan is not itself
    assert repr(found.searches) == repr(asked.searches) and found.searches[0].ended == 2


def test_one_with_few_runs_has_no_such_file(tracker: Tracker, submission: Submission) -> None:
    whole = finish(tracker, submission, many=4)
    assert whole.tracked.status == "FINISHED" and whole.finished
    assert Tag.FINISHED not in whole.tracked.tags


def test_one_that_has_not_finished_has_no_such_file(
    tracker: Tracker, submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_MANY", 1)
    assert close_submission(tracker, submission.tracked, {"A": "FAILED"}, sent=True) == 1
    found = now(tracker, submission)
    assert (found.tracked.status, found.tracked.tags["reason"]) == (
        "FAILED",
        "1 of 1 Runs and searches did not finish",
    )
    assert Tag.FINISHED not in found.tracked.tags and not found.finished


def test_a_run_that_was_deleted_since_is_missed(tracker: Tracker, submission: Submission) -> None:
    whole = finish(tracker, submission)
    tracker.connection.api.client.delete_run(str(whole.runs[1].run_id))
    assert [item.state for item in now(tracker, whole).runs] == ["FINISHED", "PENDING", "PENDING"]


def test_what_goes_on_again_is_not_read_from_the_file(
    tracker: Tracker, submission: Submission
) -> None:
    whole = finish(tracker, submission)
    tracker.writer.set_status(whole.tracked.run_id, "RUNNING")
    tracker.writer.set_status(str(whole.runs[1].run_id), "FAILED")
    assert now(tracker, whole).runs[1].state == "FAILED"


@pytest.mark.parametrize("harm", ["changed", "garbled", "deleted"])
def test_a_kept_file_that_is_not_what_was_stored_is_not_believed(
    tracker: Tracker, submission: Submission, harm: str
) -> None:
    whole = finish(tracker, submission)
    path = folder_of(tracker, whole) / "finished.json"
    text = path.read_text("utf-8")
    assert "0.625" in text
    path.unlink()
    if harm == "changed":
        path.write_text(text.replace("0.625", "0.99"), "utf-8")
    elif harm == "garbled":
        path.write_bytes(b"\xff" + text.encode())
    found = load(tracker.reader, whole.tracked)
    assert found.runs[0].tracked and found.runs[0].tracked.metrics["test/accuracy"] == 0.625


def test_what_is_stored_says_what_would_be_computed(
    tracker: Tracker, submission: Submission
) -> None:
    computed = find_answer(tracker.reader, submission)
    write_comparison(tracker, submission, computed)
    stored = find_answer(tracker.reader, now(tracker, submission))
    assert (computed.is_stored, stored.is_stored) == (False, True)
    assert stored.answer == computed.answer
    assert '"mean": 0.625' in stored.answer.forms["json"]
    assert all("0.625" in text or "62.5" in text for text in stored.answer.forms.values())
    states = [replace(item, tracked=None) for item in submission.searches]
    assert stored.answer.search_states() == states


def test_the_answer_of_a_finished_submission_is_read_without_its_runs(
    tracker: Tracker, submission: Submission
) -> None:
    assert stored_answer(tracker.reader, submission.tracked) is None
    whole = finish(tracker, submission)
    said = stored_answer(NoSearch(tracker.connection), whole.tracked)
    assert said is not None and said == find_answer(tracker.reader, whole).answer
    assert '"mean": 0.625' in said.forms["json"]


@pytest.mark.parametrize("change", ["a Run is deleted", "it goes on", "plan", "code", "file"])
def test_an_answer_that_may_have_changed_is_asked_for_with_the_runs(
    tracker: Tracker, submission: Submission, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(tracker, submission)
    run_id = whole.tracked.run_id
    if change == "a Run is deleted":
        tracker.connection.api.client.delete_run(str(whole.runs[1].run_id))
    elif change == "it goes on":
        tracker.writer.set_status(run_id, "RUNNING")
    elif change == "plan":
        tracker.writer.set_tags(run_id, {Tag.PLAN_VERSION: "another"})
    elif change == "code":
        monkeypatch.setattr(report, "tree_version", lambda: "another")
    else:
        path = folder_of(tracker, whole) / "tables" / "answer.json"
        path.write_text(path.read_text("utf-8").replace("0.625", "0.99"), "utf-8")
    assert stored_answer(tracker.reader, tracker.reader.run(run_id)) is None
