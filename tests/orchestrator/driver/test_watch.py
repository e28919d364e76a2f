"""Runs that fail, stall or collapse, and the end of a study, are told once each."""

import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.mlflow_settings import NotifySettings
from orchestrator.driver.followed import Told
from orchestrator.driver.watch import Heartbeat, Watch, tell_end
from orchestrator.notify.note import FOLDER, read_note
from orchestrator.notify.notifier import Notifier
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import PROGRESS, Store
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.run_states import Submission, run_states
from tests.orchestrator.tracking.test_run_states import child, planned

RUNS = (planned("a"), planned("b"))


@pytest.fixture(autouse=True)
def _nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.notify.notifier.send_waiting", lambda home: None)


def notes(home: Path) -> list[tuple[str, str, str]]:
    found = [read_note(path) for path in (home / FOLDER).glob("*.json")]
    return sorted((note.event, note.title, note.text) for note in found if note)


def watch(home: Path) -> Watch:
    settings = NotifySettings(webhook=["HOOK"], stalled_minutes=2)
    return Watch(Store(home / "store"), Notifier(home, "photos", settings), "job-1")


def report(store: Path, key: str, age: float, **facts: str) -> None:
    """Leave a Run that has reported so many seconds ago."""
    writer = Store(store).run(key).writer(Store(store).run(key).begin_attempt())
    writer.report({"done": 1, "total": 4, "history": [], "facts": facts})
    for name in (PROGRESS, "attempt"):
        then = time.time() - age
        os.utime(store / key / name, (then, then))


def test_a_run_that_reports_nothing_for_long_is_told_once(tmp_path: Path) -> None:
    looking = watch(tmp_path)
    report(tmp_path / "store", "a-0", age=0)
    looking.look(RUNS, {})
    assert notes(tmp_path) == []
    looking._began -= 1000
    report(tmp_path / "store", "a-0", age=200)
    looking.look(RUNS, {})
    looking.look(RUNS, {})
    ((event, title, _),) = notes(tmp_path)
    assert (event, title) == ("stalled", "a seed 0 has reported nothing for 3 min")
    looking.look(RUNS, {"a-0": State.FINISHED})
    assert len(notes(tmp_path)) == 1


def test_what_an_earlier_driver_has_left_is_not_stalled(tmp_path: Path) -> None:
    report(tmp_path / "store", "a-0", age=2000)
    watch(tmp_path).look(RUNS, {})
    assert notes(tmp_path) == []


def test_a_collapse_is_told_once_also_by_another_driver(tmp_path: Path) -> None:
    warning = "the embedding has collapsed by epoch 3 (standard deviation 0.0001)"
    report(tmp_path / "store", "a-0", age=0, warning=warning)
    watch(tmp_path).look(RUNS, {})
    watch(tmp_path).look(RUNS, {})
    assert notes(tmp_path) == [("collapsed", "a seed 0: the embedding has collapsed", warning)]


def test_the_first_run_that_fails_is_told_and_the_others_wait_for_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.run("a-0").writer(store.run("a-0").begin_attempt()).end("FAILED", "loss is nan", "job-1")
    looking = watch(tmp_path)
    looking.look(RUNS, {"a-0": State.FAILED})
    looking.look(RUNS, {"a-0": State.FAILED, "b-0": State.KILLED})
    assert notes(tmp_path) == [("failed", "a seed 0 failed; the other Runs go on", "loss is nan")]


def submission(*states: str) -> Submission:
    pairs = zip(RUNS, states, strict=True)
    children = [child(run, state, reason="loss is nan") for run, state in pairs]
    plan: dict[str, Any] = {"study": "photos"}
    tracked = TrackedRun("id", "RUNNING", {"job": "job-1"}, {}, "1")
    return Submission(tracked, plan, run_states(RUNS, children))


def test_the_end_of_a_study_is_told_once_for_each_job(tmp_path: Path) -> None:
    notifier = watch(tmp_path).notifier
    ended = submission("FINISHED", "FINISHED")
    for _ in range(2):
        tell_end(notifier, ended, "")
    text = "2 of 2 Runs finished. The answer: python -m orchestrator compare photos"
    assert notes(tmp_path) == [("done", "photos is done", text)]
    tell_end(notifier, submission("FINISHED", "FAILED"), "1 of 2 Runs did not finish")
    assert notes(tmp_path)[1] == (
        "failed",
        "photos has not finished",
        "1 of 2 Runs finished.\n1 of 2 Runs did not finish\nb seed 0 failed: loss is nan",
    )
    other = replace(ended, tracked=replace(ended.tracked, tags={"job": "job-2"}))
    tell_end(notifier, other, "")
    assert len(notes(tmp_path)) == 3


def test_a_command_that_finds_a_dead_driver_tells_whom_it_would_have_told(tmp_path: Path) -> None:
    watch(tmp_path).notifier.remember()
    tell_end(Notifier.of_study(tmp_path, "photos"), submission("FINISHED", "KILLED"), "it died")
    tell_end(Notifier.of_study(tmp_path, "other"), submission("FINISHED", "KILLED"), "it died")
    assert [event for event, _, _ in notes(tmp_path)] == ["failed"]
    Notifier(tmp_path, "photos", None).remember()  # the next driver tells nobody
    assert Notifier.of_study(tmp_path, "photos").settings is None


@dataclass
class Planned:
    runs: tuple = RUNS


@dataclass
class Training:
    """Stands for what the scheduler shows."""

    states: dict[str, State] = field(default_factory=dict)
    prepared: Planned = field(default_factory=Planned)


def test_the_thread_looks_a_last_time_when_it_is_stopped(tmp_path: Path) -> None:
    looking, training = watch(tmp_path), Training()
    looking.start(training)
    training.states["a-0"] = State.FAILED
    looking.stop()
    assert [event for event, _, _ in notes(tmp_path)] == ["failed"]
    kept = json.loads(next((tmp_path / FOLDER).glob("*.json")).read_text("utf-8"))
    assert kept["settings"]["webhook"] == ["HOOK"]


def test_what_a_driver_tells_reaches_other_machines(tmp_path: Path) -> None:
    tags: dict[str, str] = {}
    heart = Heartbeat(tags.update, tmp_path / "job.events")
    heart.beat()
    assert abs(float(tags["heartbeat"]) - time.time()) < 10 and tags["waits"] == ""
    event = {"time": time.time(), "text": "a seed 0: killed worker 1 was lost with its node"}
    (tmp_path / "job.events").write_text(json.dumps(event) + "\n", "utf-8")
    heart.waits("waits for nodes")
    heart.beat()
    assert tags["waits"] == "waits for nodes"
    told = Told(tmp_path / "elsewhere" / "job.events")
    told.hear(tags["news"])
    (line,) = told.new()
    assert line.endswith(event["text"])
    told.hear(tags["news"])
    assert told.new() == []


def test_mlflow_is_not_asked_where_nothing_is_new(tmp_path: Path) -> None:
    sent: list[object] = []
    heart = Heartbeat(sent.append, tmp_path / "job.events")
    heart.beat()
    heart.beat()
    assert len(sent) == 1
    heart.waits("waits for nodes")
    heart.beat()
    assert len(sent) == 2
