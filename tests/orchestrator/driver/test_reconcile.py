"""A submission on a cluster that does not answer lives as long as its driver is heard of."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.driver.reconcile import ending, is_alive, reconcile
from orchestrator.planning.plan import FORMAT
from orchestrator.storage.home import Home
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import Submission, newest
from tests.orchestrator.tracking.test_run_states import planned

GONE = "http://127.0.0.1:9"  # nothing listens there
RUNS = (replace(planned("A"), key="a" * 20), replace(planned("B"), key="b" * 20))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home").create()


@pytest.fixture
def tracker(mlflow_uri: str, tmp_path: Path) -> Tracker:
    """The server that commands ask, too."""
    (tmp_path / "mlflow.yaml").write_text(f"tracking_uri: {mlflow_uri}\n")
    return Tracker(mlflow_uri)


def submitted(tracker: Tracker, submitter: str, **tags: str) -> Submission:
    """A submission on a cluster that is gone, whose store is elsewhere; one Run of two runs."""
    writer, experiment = tracker.writer, tracker.writer.experiment("small")
    tags = {"kind": "submission", "study": "small", "job": "job-1", "cluster": GONE,
            "home": "head:/shared", "submitter": submitter, **tags}  # fmt: skip
    run_id = writer.create_run(experiment, "submission", tags)
    plan = {"format": FORMAT, "study": "small", "question": "?", "reference": {},
            "compare": {"metric": "test/accuracy", "stages": ["A"], "rows": "stage", "plots": []},
            "runs": [dict(vars(run)) for run in RUNS]}  # fmt: skip
    writer.log_text(run_id, json.dumps(plan), "plan.json")
    run = {"kind": "run", "label": "A", "seed": "0", "run_key": RUNS[0].key}
    writer.create_run(experiment, "A seed 0", run, run_id)
    found = newest(tracker.reader, "small", submitter)
    assert found is not None
    return found


def seconds_ago(seconds: float) -> str:
    return f"{time.time() - seconds:.0f}"


def test_a_driver_that_is_heard_lives(tracker: Tracker, home: Home) -> None:
    found = submitted(tracker, home.name, heartbeat=seconds_ago(20))
    assert is_alive(found, home, None)


def test_one_of_an_earlier_version_may_live(tracker: Tracker, home: Home) -> None:
    assert is_alive(submitted(tracker, home.name), home, None)


def test_one_that_is_silent_is_gone_whoever_looks(tracker: Tracker, home: Home) -> None:
    found = submitted(tracker, "another home", heartbeat=seconds_ago(600))
    assert not is_alive(found, home, None)
    why = ending(found, None)
    assert why == f"its cluster at {GONE} does not answer, and its driver was last heard of " + (
        "10 min ago"
    )
    after = reconcile(tracker, home, found, why)
    assert after.tracked.status == "KILLED"
    states = {item.run.label: item.state for item in after.runs}
    assert states["A"] == "KILLED" and why in after.runs[0].reason


def test_stop_ends_what_is_lost_and_nothing_else(
    tracker: Tracker, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(tracker, home.name, heartbeat=seconds_ago(20))
    assert main(["stop", "small"]) == 1
    assert "small was not stopped: its cluster at" in capsys.readouterr().err
    run = newest(tracker.reader, "small", home.name)
    assert run is not None and run.tracked.status == "RUNNING"
    tracker.writer.set_tags(run.tracked.run_id, {"heartbeat": seconds_ago(600)})
    assert main(["stop", "small"]) == 0
    assert "small is marked as ended: its cluster at" in capsys.readouterr().out
    assert tracker.reader.run(run.tracked.run_id).status == "KILLED"


def test_a_study_of_another_home_is_stopped_only_where_one_says_so(
    tracker: Tracker, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(tracker, "desk:/home/me", heartbeat=seconds_ago(600))
    assert main(["stop", "small"]) == 1
    assert "was submitted by home desk:/home/me: `stop small --any-home`" in capsys.readouterr().err
    assert main(["stop", "small", "--any-home"]) == 0
    assert "is marked as ended" in capsys.readouterr().out
    submitted(tracker, "desk:/home/me", cluster="local")
    assert main(["stop", "small", "--any-home"]) == 1
    assert "runs on the machine of home desk:/home/me: stop it there" in capsys.readouterr().err


def test_logs_of_a_run_that_trains_elsewhere_are_said_to_come(
    tracker: Tracker, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(tracker, "desk:/home/me", heartbeat=seconds_ago(20))
    assert main(["logs", "small/A/0"]) == 1
    assert "it trains on another machine (attempt 1)" in capsys.readouterr().err
    assert main(["logs", "small/B/0"]) == 1
    assert "it has not started" in capsys.readouterr().err
