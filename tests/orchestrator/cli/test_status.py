"""Tests of status: which submissions it shows, and what it prints of one study."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli import status
from orchestrator.cli.status import (
    _Listed,
    _reconciled,
    _show_name,
    _show_study,
    _status_json,
)
from orchestrator.driver.submission import close_submission
from orchestrator.planning.plan import FORMAT
from orchestrator.reporting.comparison import State
from orchestrator.services.record import Services
from orchestrator.storage.home import Home
from orchestrator.tracking import comparison_report, run_states
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import RunState, SearchState, Submission
from tests.orchestrator.tracking.test_run_states import planned

URI = "http://127.0.0.1:5000"
FACT = "122 encoder tensors from byol epoch 4, fingerprint 67e33aef9c23"


def submission() -> Submission:
    """A Run that has finished with a warning, one that failed, and a search."""
    tags = {"weight_transfer": FACT, "warning": "the embedding has collapsed", "epochs": "4"}
    metrics = {"test/accuracy": 0.75, "train/loss": 0.25}
    done = TrackedRun("run-a", "FINISHED", tags, metrics, "7")
    failed = TrackedRun("run-b", "FAILED", {}, {}, "7")
    runs = (
        RunState(planned("A"), State.FINISHED, "run-a", {}, "", done),
        RunState(planned("B"), State.FAILED, "run-b", {}, "loss is not finite in epoch 2", failed),
    )
    best = {"label": "S[lr=0.1]", "figure": 0.5}
    spec = {"stage": "S", "count": 2, "metric": "val/accuracy"}
    search = SearchState(spec, State.FINISHED, "", {"FINISHED": 2}, best, None)
    tracked = TrackedRun("parent", "FAILED", {}, {}, "7")
    return Submission(tracked, {"study": "small", "question": "Why?\n"}, runs, (search,))


@pytest.mark.parametrize("width", [80, 140])
def test_one_study_is_shown_with_every_detail(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    _show_name(_Listed.of(submission()), URI, console)
    _show_study(submission(), URI, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    words = " ".join(text.split())
    for part in (
        "small FAILED",
        "Why?",
        f"{URI}/#/experiments/7/runs?workflowType=machine_learning",
        "search S: best val/accuracy 50.00 % of 2 trials: S[lr=0.1]",
        "A seed 0 finished 4/4 test/accuracy 0.750",
        FACT,
        "the embedding has collapsed",
        "loss is not finite in epoch 2",
        "A-0",
        "run-b",
    ):
        assert part in words, text
    lines = [line for line in text.splitlines() if not line.startswith(URI)]  # to be copied whole
    assert max(map(len, lines)) <= width


def test_json_holds_every_run_and_search() -> None:
    answer = json.loads(json.dumps(_status_json(Services(None, URI), [_Listed.of(submission())])))
    assert answer["mlflow"] == {"tracking_uri": URI}
    (study,) = answer["studies"]
    assert (study["study"], study["state"]) == ("small", "FAILED")
    assert study["address"].startswith(f"{URI}/#/experiments/7/runs?")
    assert [run["reason"] for run in study["runs"]] == ["", "loss is not finite in epoch 2"]
    assert study["runs"][0]["weight_transfer"] == FACT
    assert study["searches"][0]["best"]["label"] == "S[lr=0.1]"


def test_only_the_study_that_is_asked_for_is_read(tmp_path: Path, mlflow_uri: str) -> None:
    writer = Tracker(mlflow_uri).writer
    for study in ("first", "second"):
        plan = {"format": FORMAT, "study": study, "question": "", "runs": [], "searches": []}
        run_id = writer.create_run(writer.experiment(study), "submission", {"kind": "submission"})
        writer.log_text(run_id, json.dumps(plan), "plan.json")
        writer.set_status(run_id, "FINISHED")
    home, running = Home(tmp_path / "home"), Services(None, mlflow_uri)
    names = {
        asked: sorted(item.study for item in _reconciled(home, running, asked))
        for asked in (None, "first", "third")
    }
    assert names == {None: ["first", "second"], "first": ["first"], "third": []}
    assert _reconciled(home, Services(None, None), None) == []


def test_whose_a_submission_is_is_said_where_homes_share_a_server(
    tmp_path: Path, mlflow_uri: str
) -> None:
    writer, home = Tracker(mlflow_uri).writer, Home(tmp_path / "home").create()
    for study, owners in (("both", (home.name, "theirs")), ("alien", ("theirs",))):
        plan = {"format": FORMAT, "study": study, "question": "", "runs": [], "searches": []}
        for owner in owners:
            tags = {"kind": "submission", "home": owner, "job": f"{study} of {owner}"}
            run_id = writer.create_run(writer.experiment(study), "submission", tags)
            writer.log_text(run_id, json.dumps(plan), "plan.json")
            writer.set_status(run_id, "FINISHED" if owner == home.name else "RUNNING")
    listed = {item.study: item for item in _reconciled(home, Services(None, mlflow_uri), None)}
    assert listed["both"].submission.tracked.tags["job"] == f"both of {home.name}"
    assert (listed["both"].owner, list(listed["both"].others)) == ("", ["theirs"])
    assert (listed["alien"].owner, dict(listed["alien"].others)) == ("theirs", {})
    console = Console(file=io.StringIO(), width=80)
    for item in listed.values():
        _show_name(item, URI, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "home theirs has submitted both too: RUNNING" in text
    assert "alien RUNNING  (of home theirs)" in text


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 2, "runs": [1]}'])
def test_the_damaged_plan_of_one_study_hides_no_other(
    tmp_path: Path, mlflow_uri: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    writer, home = Tracker(mlflow_uri).writer, Home(tmp_path / "home").create()
    plan = {"format": FORMAT, "study": "whole", "question": "", "runs": [], "searches": []}
    for study, stored in (("whole", json.dumps(plan)), ("broken", text)):
        tags = {"kind": "submission", "study": study, "home": home.name}
        run_id = writer.create_run(writer.experiment(study), "submission", tags)
        writer.log_text(run_id, stored, "plan.json")
        writer.set_status(run_id, "FINISHED")
    assert [item.study for item in _reconciled(home, Services(None, mlflow_uri), None)] == ["whole"]
    assert capsys.readouterr().err.count("submit the study again") == 1


def finished(tracker: Tracker, home: Home, runs: int = 3) -> TrackedRun:
    """A study of some Runs that has finished, closed as its driver does it."""
    names = {f"{number:020d}": f"A[lr={number}]" for number in range(runs)}
    plan = {
        "format": FORMAT,
        "study": "many",
        "question": "",
        "reference": {},
        "searches": [],
        "compare": {"metric": "test/accuracy", "stages": ["A"], "rows": "label", "plots": []},
        "runs": [dict(vars(planned(name, key=key))) for key, name in names.items()],
    }
    experiment = tracker.writer.experiment("many")
    tags = {"kind": "submission", "home": home.name, "job": "gone", "study": "many"}
    run_id = tracker.writer.create_run(experiment, "submission", tags)
    tracker.writer.log_text(run_id, json.dumps(plan), "plan.json")
    for key, name in names.items():
        tags = {"run_key": key, "label": name, "seed": "0", "kind": "run", "epochs": "2"}
        run = tracker.writer.create_run(experiment, name, tags, run_id)
        tracker.writer.set_status(run, "FINISHED")
    ends = {name: "FINISHED" for name in names}
    assert close_submission(tracker, tracker.reader.run(run_id), ends, sent=True) == 0
    return tracker.reader.run(run_id)


@pytest.fixture
def many(mlflow_uri: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> TrackedRun:
    monkeypatch.setattr(run_states, "_MANY", 3)
    return finished(Tracker(mlflow_uri), home)


def test_a_finished_study_of_many_runs_is_shown_from_what_is_kept(
    many: TrackedRun, mlflow_uri: str, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Services(None, mlflow_uri)
    (first,) = _reconciled(home, running, None, details=False)
    assert first.submission is not None and len(first.runs) == 3
    monkeypatch.setattr(status, "load", lambda *_: pytest.fail("read again"))
    (second,) = _reconciled(home, running, None, details=False)
    assert second.submission is None
    answers = [_status_json(running, [item]) for item in (first, second)]
    assert json.dumps(answers[0]) == json.dumps(answers[1])


@pytest.mark.parametrize(
    "change", ["a Run is deleted", "it goes on", "submitted again", "code", "damaged", "details"]
)
def test_what_is_kept_is_not_shown_when_something_may_have_changed(
    many: TrackedRun, mlflow_uri: str, home: Home, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, tracker = Services(None, mlflow_uri), Tracker(mlflow_uri)
    (first,) = _reconciled(home, running, None, details=False)
    if change == "a Run is deleted":
        tracker.connection.api.post("runs/delete", run_id=first.runs[0]["mlflow_run_id"])
    elif change == "it goes on":
        tracker.writer.set_status(many.run_id, "RUNNING")
    elif change == "submitted again":
        finished(tracker, home, runs=4)
    elif change == "code":
        monkeypatch.setattr(comparison_report, "tree_version", lambda: "another")
    elif change == "damaged":
        (home.listings / "many.json").write_text('{"made_from": 1}', "utf-8")
    (second,) = _reconciled(home, running, None, details=change == "details")
    assert second.submission is not None
    assert len(second.runs) == (4 if change == "submitted again" else 3)
    states = {run["state"] for run in second.runs}
    assert ("PENDING" in states) == (change == "a Run is deleted")
