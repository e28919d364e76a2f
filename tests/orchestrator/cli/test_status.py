"""Tests of status: which submissions it shows, and what it prints of one study."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.cli.status import _Listed, _reconciled, _show_study, _status_json
from orchestrator.execution.services import Services
from orchestrator.planning.plan import FORMAT
from orchestrator.reporting.comparison import State
from orchestrator.storage.home import Home
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
    _show_study(_Listed(submission(), "", {}), URI, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    words = " ".join(text.split())
    for part in (
        "small FAILED",
        "Why?",
        f"{URI}/#/experiments/7/runs/parent",
        "search S: best val/accuracy 50.00 % of 2 trials: S[lr=0.1]",
        "A seed 0 finished 4/4 test/accuracy 0.750",
        FACT,
        "the embedding has collapsed",
        "loss is not finite in epoch 2",
        "A-0",
        "run-b",
    ):
        assert part in words, text
    assert max(map(len, text.splitlines())) <= width


def test_json_holds_every_run_and_search() -> None:
    answer = json.loads(
        json.dumps(_status_json(Services(None, URI), [_Listed(submission(), "", {})]))
    )
    assert answer["mlflow"] == {"tracking_uri": URI}
    (study,) = answer["studies"]
    assert (study["study"], study["state"]) == ("small", "FAILED")
    assert [run["reason"] for run in study["runs"]] == ["", "loss is not finite in epoch 2"]
    assert study["runs"][0]["weight_transfer"] == FACT
    assert study["searches"][0]["best"]["label"] == "S[lr=0.1]"


def test_only_the_study_that_is_asked_for_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts below
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    writer = Tracker(uri).writer
    for study in ("first", "second"):
        plan = {"format": FORMAT, "study": study, "question": "", "runs": [], "searches": []}
        run_id = writer.create_run(writer.experiment(study), "submission", {"kind": "submission"})
        writer.log_text(run_id, json.dumps(plan), "plan.json")
        writer.set_status(run_id, "FINISHED")
    home, running = Home(tmp_path / "home"), Services(None, uri)
    names = {
        asked: sorted(item.study for item in _reconciled(home, running, asked))
        for asked in (None, "first", "third")
    }
    assert names == {None: ["first", "second"], "first": ["first"], "third": []}
    assert _reconciled(home, Services(None, None), None) == []


def test_whose_a_submission_is_is_said_where_homes_share_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts below
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    writer, home = Tracker(uri).writer, Home(tmp_path / "home").create()
    for study, owners in (("both", (home.name, "theirs")), ("alien", ("theirs",))):
        plan = {"format": FORMAT, "study": study, "question": "", "runs": [], "searches": []}
        for owner in owners:
            tags = {"kind": "submission", "home": owner, "job": f"{study} of {owner}"}
            run_id = writer.create_run(writer.experiment(study), "submission", tags)
            writer.log_text(run_id, json.dumps(plan), "plan.json")
            writer.set_status(run_id, "FINISHED" if owner == home.name else "RUNNING")
    listed = {item.study: item for item in _reconciled(home, Services(None, uri), None)}
    assert listed["both"].submission.tracked.tags["job"] == f"both of {home.name}"
    assert (listed["both"].owner, list(listed["both"].others)) == ("", ["theirs"])
    assert (listed["alien"].owner, dict(listed["alien"].others)) == ("theirs", {})
    console = Console(file=io.StringIO(), width=80)
    for item in listed.values():
        _show_study(item, URI, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "home theirs has submitted both too: RUNNING" in text
    assert "alien RUNNING  (of home theirs)" in text


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2}', '{"format": 2, "runs": [1]}'])
def test_the_damaged_plan_of_one_study_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # MLflow keeps artifacts below
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    writer, home = Tracker(uri).writer, Home(tmp_path / "home").create()
    plan = {"format": FORMAT, "study": "whole", "question": "", "runs": [], "searches": []}
    for study, stored in (("whole", json.dumps(plan)), ("broken", text)):
        tags = {"kind": "submission", "study": study, "home": home.name}
        run_id = writer.create_run(writer.experiment(study), "submission", tags)
        writer.log_text(run_id, stored, "plan.json")
        writer.set_status(run_id, "FINISHED")
    assert [item.study for item in _reconciled(home, Services(None, uri), None)] == ["whole"]
    assert capsys.readouterr().err.count("submit the study again") == 1
