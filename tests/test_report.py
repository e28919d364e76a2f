"""A comparison as it is written into MLflow, and when it is left as it stands; what is kept of a
submission that has finished."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import report
from orchestrator.plan import FORMAT
from orchestrator.report import write_comparison
from orchestrator.results import Submission, keep, load, run_states
from orchestrator.tracking import TrackedRun, Tracker
from tests.test_results import planned

RUNS = (planned("A"), planned("B"))
PLAN = {
    "format": FORMAT,
    "study": "small",
    "question": "Does it stand?",
    "compare": {
        "metric": "test/accuracy",
        "stages": ["A", "B"],
        "rows": "stage",
        "plots": ["bars", "curves", "loss"],
    },
    "reference": {"A": 0.5},
    "runs": [dict(vars(run)) for run in RUNS],
}


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow keeps artifacts below
        yield Tracker(f"sqlite:///{folder / 'mlflow.db'}")


@pytest.fixture
def submission(tracker: Tracker, request: pytest.FixtureRequest) -> Submission:
    """A has finished after two epochs; B waits."""
    experiment = tracker.experiment(request.node.name)
    tracked = tracker.run(tracker.create_run(experiment, "submission", {"kind": "submission"}))
    tags = {"label": "A", "seed": "0", "kind": "run", "epochs": "2"}
    run_id = tracker.create_run(experiment, "A", tags, tracked.run_id)
    epochs = [{"epoch": n, "val/loss": 1 / n, "val/accuracy": 0.3 * n} for n in (1, 2)]
    tracker.log_epochs(run_id, [*epochs, {"epoch": 2, "test/accuracy": 0.625}], {})
    tracker.set_status(run_id, "FINISHED")
    return now(tracker, Submission(tracked, PLAN, ()))


def now(tracker: Tracker, submission: Submission) -> Submission:
    """As MLflow has it."""
    tracked = tracker.run(submission.tracked.run_id)
    return replace(submission, tracked=tracked, runs=run_states(RUNS, tracker.children(tracked)))


def written(tracker: Tracker, submission: Submission, folder: Path) -> str:
    path = tracker.download_file(submission.tracked.run_id, "tables/comparison.csv", folder)
    return path.read_text("utf-8")


def folder_of(tracker: Tracker, submission: Submission) -> Path:
    """Of its artifacts."""
    uri = tracker.client.get_run(submission.tracked.run_id).info.artifact_uri
    return Path(uri.removeprefix("file://"))


def overwrite(tracker: Tracker, submission: Submission, folder: Path) -> None:
    """With what nobody would write."""
    (folder / "comparison.csv").write_text("mine", "utf-8")
    tracker.log_files(submission.tracked.run_id, folder, "tables")


def test_tables_and_figures_are_artifacts_of_the_submission(
    tracker: Tracker, submission: Submission, tmp_path: Path
) -> None:
    write_comparison(tracker, submission)
    run_id = submission.tracked.run_id
    tables = ["tables/comparison.csv", "tables/comparison.md"]
    plots = ["plots/bars.png", "plots/curves.png", "plots/loss.png"]
    assert sorted(tracker.files(run_id, "tables")) == tables
    assert sorted(tracker.files(run_id, "plots")) == plots
    header, a, b = written(tracker, submission, tmp_path).splitlines()
    assert header.startswith("stage,label,metric,n,mean")
    assert a.startswith("A,A,test/accuracy,1,0.625,,0.5") and b.startswith("B,B,test/accuracy,0,,")


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
    tracker.set_tags(run_id, {"maps": "plots/"})  # its pictures are there now
    assert rewrites()
    tracker.log_epochs(run_id, [{"epoch": 2, "test/accuracy": 0.75}], {})
    assert rewrites()
    tags = {"label": "B", "seed": "0", "kind": "run"}
    tracker.create_run(submission.tracked.experiment_id, "B", tags, submission.tracked.run_id)
    assert rewrites()
    monkeypatch.setattr(report, "tree_version", lambda: "another")
    assert rewrites()
    assert not rewrites()


def test_a_comparison_that_somebody_deleted_is_written_again(
    tracker: Tracker, submission: Submission
) -> None:
    write_comparison(tracker, submission)
    for path in folder_of(tracker, submission).rglob("comparison.*"):
        path.unlink()
    write_comparison(tracker, now(tracker, submission))
    assert len(tracker.files(submission.tracked.run_id, "tables")) == 2


def finish(tracker: Tracker, submission: Submission) -> Submission:
    """B has finished too, and the submission is closed as its driver does it."""
    tags = {"label": "B", "seed": "0", "kind": "run"}
    experiment = submission.tracked.experiment_id
    run_id = tracker.create_run(experiment, "B", tags, submission.tracked.run_id)
    tracker.log_epochs(run_id, [{"epoch": 2, "test/accuracy": float("nan")}], {})
    tracker.set_status(run_id, "FINISHED")
    whole = now(tracker, submission)
    keep(tracker, whole)
    tracker.set_status(whole.tracked.run_id, "FINISHED")
    return now(tracker, whole)


class Deaf(Tracker):
    """Searches nothing."""

    def children(self, submission: TrackedRun) -> list[TrackedRun]:
        raise AssertionError("asked for what is in a file")


def test_a_finished_submission_is_read_from_one_file(
    tracker: Tracker, submission: Submission
) -> None:
    whole = finish(tracker, submission)
    found = load(Deaf(tracker.uri), whole.tracked, PLAN)
    assert found.finished and repr(found.runs) == repr(whole.runs)  # nan is not itself


def test_what_goes_on_again_is_not_read_from_the_file(
    tracker: Tracker, submission: Submission
) -> None:
    whole = finish(tracker, submission)
    tracker.set_status(whole.tracked.run_id, "RUNNING")
    tracker.set_status(str(whole.runs[1].run_id), "FAILED")
    assert load(tracker, tracker.run(whole.tracked.run_id), PLAN).runs[1].state == "FAILED"


@pytest.mark.parametrize("harm", ["changed", "deleted"])
def test_a_kept_file_that_is_not_what_was_stored_is_not_believed(
    tracker: Tracker, submission: Submission, harm: str
) -> None:
    whole = finish(tracker, submission)
    path = folder_of(tracker, whole) / "ended.json"
    text = path.read_text("utf-8")
    assert "0.625" in text
    path.unlink()
    if harm == "changed":
        path.write_text(text.replace("0.625", "0.99"), "utf-8")
    found = load(tracker, whole.tracked, PLAN)
    assert found.runs[0].tracked and found.runs[0].tracked.metrics["test/accuracy"] == 0.625
