"""Why a driver ends reaches its output and MLflow, in one line. With MLflow's server, no Ray."""

import errno
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orchestrator.cli.status import _reconciled
from orchestrator.config.errors import Refused, StudyError
from orchestrator.driver import driver
from orchestrator.execution.ray_jobs import Job, errors_in
from orchestrator.planning.plan import FORMAT
from orchestrator.services.record import Services
from orchestrator.storage.home import Home
from orchestrator.tracking.mlflow_writer import Tracker
from trainables.dataset import DataError


@pytest.fixture
def job(tmp_path: Path, mlflow_uri: str) -> Job:
    home = Home(tmp_path / "home").create()
    study = {"study": "small"}
    return Job("small-2", study, "", None, str(home.root), "local", mlflow_uri, "other tree", None,
               submitter=home.name)  # fmt: skip


def ended(job: Job, folder: Path) -> int:
    (folder / "job.json").write_text(json.dumps(asdict(job)), "utf-8")
    return driver.main(str(folder / "job.json"))


def test_a_driver_that_is_refused_says_so_everywhere(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(job, tmp_path) == 1
    reason = "driver and command run different code: install the same on both"
    assert errors_in(capsys.readouterr().err) == [reason]
    home, reader = Home(Path(job.home)), Tracker(job.tracking_uri).reader
    failed = reader.failed_opening("small", home.name)
    assert failed is not None
    assert (failed.status, failed.tags["reason"]) == ("FAILED", reason)
    assert reader.failed_opening("small", "other home") is None
    assert reader.newest_submission("small", home.name) is None  # none that compare would show


def _in_one_line(text: str) -> str:
    head, *details = (line.strip() for line in text.splitlines())
    return f"{head}: {'; '.join(details)}" if details else head


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("photos/a.png is no image"), "photos/a.png is no image"),
        (StudyError("s", ["data.x: no such folder"]), "s: 1 error\n  data.x: no such folder"),
        (Refused("the store is busy", 1), "the store is busy"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space and submit again"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "Permission denied: '/x'"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero (details: "),
        (
            RuntimeError(
                "Traceback (most recent call last):\n  File 'a.py'\nEOFError: too short\n"
            ),
            "RuntimeError: EOFError: too short (details: ",
        ),
    ],
)
def test_every_error_of_a_driver_is_one_line(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def fail(job: Job) -> int:
        raise error

    monkeypatch.setattr(driver, "run", fail)
    assert ended(job, tmp_path) == 1
    (found,) = errors_in(capsys.readouterr().err)
    assert said in found
    failed = Tracker(job.tracking_uri).reader.failed_opening("small", job.submitter)
    assert failed is not None and failed.tags["reason"] == _in_one_line(found)
    if "details" in said:
        text = (Path(job.home) / "logs" / "small-2.log").read_text("utf-8")
        assert str(error) in text and "Traceback" in text


def test_status_shows_a_submit_that_failed_after_the_last_submission(
    job: Job, tmp_path: Path
) -> None:
    home, tracker = Home(Path(job.home)), Tracker(job.tracking_uri)
    plan = {"format": FORMAT, "study": "small", "question": "", "runs": [], "searches": []}
    tags = {"kind": "submission", "home": home.name, "job": "small-1"}
    run_id = tracker.writer.create_run(tracker.writer.experiment("small"), "x", tags)
    tracker.writer.log_text(run_id, json.dumps(plan), "plan.json")
    tracker.writer.set_status(run_id, "FINISHED")
    running = Services(None, job.tracking_uri)
    (item,) = _reconciled(home, running, None)
    assert item.failure == ""
    driver.note_failure(job, "no such folder")
    (item,) = _reconciled(home, running, None)
    assert item.failure == "no such folder"
    tracker.writer.set_tags(run_id, {"job": "small-3"})  # it has gone on since
    (item,) = _reconciled(home, running, None)
    assert item.failure == ""


def test_the_reason_goes_into_the_submission_that_was_opened(job: Job) -> None:
    tracker = Tracker(job.tracking_uri)
    tags = {"kind": "submission", "job": job.job_id}
    run_id = tracker.writer.create_run(tracker.writer.experiment("small"), "x", tags)
    driver.note_failure(job, "too hot\n  details")
    assert tracker.reader.run(run_id).tags["reason"] == "too hot: details"


def test_an_mlflow_that_does_not_answer_hides_no_reason(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(replace(job, tracking_uri="http://127.0.0.1:1"), tmp_path) == 1
    assert len(errors_in(capsys.readouterr().err)) == 1
