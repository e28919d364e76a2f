"""Two of everything, stops, outages: each with real commands, a real Ray head, a real MLflow."""

import os
import shutil
import signal
import time

import psutil
import pytest

from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.config.study_loader import from_mapping
from orchestrator.driver.reconcile import is_alive, reconcile
from orchestrator.driver.submission import open_submission
from orchestrator.execution.ray_jobs import Job
from orchestrator.planning.prepare import prepare
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import State
from orchestrator.services.home_services import find, stop
from orchestrator.services.processes import alive
from orchestrator.storage.files import locked, read_json
from orchestrator.storage.home import LOCAL, Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.run_states import newest
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync
from tests.integration.command import ALONE, HANGS, Command, wait_for

pytestmark = pytest.mark.slow


def test_the_life_of_a_study_that_is_submitted_twice_stopped_and_submitted_again(command):
    # another rate than elsewhere, so that no other study reuses its Runs
    study = command.study("busy", epochs=100, lr=0.013, form=ALONE)
    both = [command.start("submit", study) for _ in range(2)]
    wait_for(command.driver)
    other = command.run("submit", study, "--set", "stages.full.config.epochs=151")
    assert other.returncode == 2 and "is running with another plan" in other.stderr
    assert "stop busy" in other.stderr
    key = command.training(study)
    pid = Store(command.home / "store").run(key).progress()["pid"]
    stopped = command.run("stop", "busy")
    assert stopped.returncode == 0 and "stopped busy: submit it again" in stopped.stdout
    ends = [process.communicate(timeout=600) for process in both]
    assert sum("following job" in err for _, err in ends) == 1
    assert all("was stopped" in err for _, err in ends)
    assert [process.returncode for process in both] == [1, 1]
    wait_for(lambda: not psutil.pid_exists(pid))
    after = command.runs("busy")["full"]
    assert after["state"] == "KILLED" and "it was stopped" in after["reason"]
    assert "was not running" in command.run("stop", "busy").stdout
    said = command.ask("logs", "busy/full/0").stdout
    assert "==> attempt 1, rank 0 <==" in said and "INFO epoch 1: train/loss" in said
    again = command.run("submit", study)
    assert again.returncode == 0, again.stdout + again.stderr
    assert {item["state"] for item in command.runs("busy").values()} == {"FINISHED"}
    for name in (key[:9], after["mlflow_run_id"]):
        assert "==> attempt 2, rank 0 <==" in command.ask("logs", name).stdout


def test_a_run_that_hangs_ends_itself_and_goes_on(command):
    """A worker that is frozen holds up the other one, as a network that is gone would."""
    study = command.study("hangs", epochs=80, lr=0.017, form=ALONE)
    settings = ("--set", "resources.workers=2", "--set", "resources.stall_minutes=0.5")
    follower = command.start("submit", study, *settings)
    key = command.training(study, *settings)
    run = Store(command.home / "store").run(key)
    first = run.progress()["pid"]
    titles = {p.pid: " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])}
    workers = {pid for pid, title in titles.items() if title.startswith("ray::hangs/full/0")}
    (other,) = [psutil.Process(pid) for pid in workers - {first} if "controller" not in titles[pid]]
    other.suspend()
    out, err = follower.communicate(timeout=HANGS)
    assert follower.returncode == 0, out + err
    assert "worker 0 ended itself: no progress for 0.5 minutes" in out + err
    log = run.log_file(1, 0).read_text()
    assert "the process ends itself: no progress for 0.5 minutes" in log
    assert "most recent call first" in log  # where it hung
    assert command.runs("hangs")["full"]["state"] == "FINISHED"
    assert not other.is_running()


def test_two_studies_at_once_train_what_they_share_once(command):
    # other epochs than elsewhere, so that no study has trained them yet
    change = ("--set", "stages.rotation.config.epochs=3", "--set", "stages.full.config.lr=0.02")
    both = [command.start("submit", command.study(name, epochs=2), *change) for name in "pq"]
    for process in both:
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, out + err
    store, client = Store(command.home / "store"), command.mlflow()
    runs = {name: command.runs(name) for name in "pq"}
    for label in ("rotation", "late", "full"):
        assert runs["p"][label]["key"] == runs["q"][label]["key"]
        assert store.run(runs["p"][label]["key"]).attempt() == 1
        kinds = [client.get_run(runs[name][label]["mlflow_run_id"]).data.tags["orchestrator.kind"]
                 for name in "pq"]  # fmt: skip
        assert sorted(kinds) == ["reused", "run"]


def test_what_logs_and_stop_do_not_know_is_said(finished, command):
    unknown = command.ask("logs", "tiny/nothing/0")
    assert unknown.returncode == 1 and "such as tiny/rotation/0" in unknown.stderr
    assert "no Run ffff" in command.ask("logs", "ffff").stderr
    assert command.ask("logs", "../../etc/passwd").returncode == 1
    never = command.run("stop", "never")
    assert never.returncode == 1 and "was never submitted" in never.stderr


def test_clean_lists_then_removes_what_no_plan_needs(finished, command):
    waste = command.home / "store" / ("f" * 20)
    waste.mkdir()
    (waste / "weights.pt").write_bytes(bytes(5_000_000))
    listed = command.run("clean", "--dry-run")
    assert str(waste) in listed.stdout and "would be freed" in listed.stdout and waste.is_dir()
    assert command.run("clean").returncode == 0
    assert not waste.exists()
    again = command.run("submit", command.study("tiny"))
    assert "nothing to train" in again.stdout, again.stdout + again.stderr


# --- MLflow away ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_home(tmp_path_factory):
    """A home with an MLflow server that may be struck."""
    made = Home(tmp_path_factory.mktemp("losses") / "home").create()
    yield made
    stop(made)


@pytest.fixture
def home(own_home: Home) -> Home:
    """The same with an empty store."""
    shutil.rmtree(own_home.store)
    return own_home.create()


@pytest.fixture
def server(home: Home) -> Tracker:
    """A connection to its server."""
    return Tracker(find(home, MlflowSettings()).mlflow_uri or _up(home))


@pytest.fixture
def study(request) -> str:
    """A name of its own for each test."""
    return request.node.name[:64]


def _up(home: Home) -> str:
    """Start MLflow alone, as a command that needs no more of the services does."""
    said = Command(home.root.parent).ask("compare", "nothing").stderr
    assert "was never submitted" in said
    return str(find(home, MlflowSettings()).mlflow_uri)


def _kill(home: Home) -> None:
    for item in read_json(home.services)["mlflow"]["processes"]:
        if process := alive(item):
            process.kill()
            process.wait()


def _restart(home: Home) -> None:
    before = read_json(home.services)["mlflow"]["uri"]
    assert _up(home) == before


def test_a_call_that_was_heard_but_not_answered_is_not_counted_twice(
    server, monkeypatch, home, study
):
    run_id = server.writer.create_run(server.writer.experiment(study), "a", {})
    stamps: dict[int, int] = {}
    epochs = [{"epoch": n, "val/loss": 1.0 / n} for n in (1, 2)]
    pids = [item["pid"] for item in read_json(home.services)["mlflow"]["processes"]]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TrackingError):
        server.writer.log_epochs(run_id, epochs, stamps)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    time.sleep(1)
    for _ in range(2):
        server.writer.log_epochs(run_id, epochs, stamps)
    assert server.reader.history(run_id, "val/loss") == [(1, 1.0), (2, 0.5)]
    points = server.connection.api.client.get_metric_history(run_id, "val/loss")
    assert [point.step for point in points] == [1, 2]


def _mapping(name: str, epochs: int = 1) -> dict:
    config = {"dataset": "digits", "epochs": epochs, "batch_size": 16}
    return {
        "study": name,
        "data": {"digits": {"type": "digits", "limit": 60}},
        "stages": {"only": {"trainable": "classify", "config": config}},
    }


def _opened(
    server: Tracker, home: Home, name: str, epochs: int = 1, job_id: str = "gone"
) -> tuple[MlflowSync, Run, Store]:
    """A submission of one Run, which MLflow has as RUNNING."""
    study = from_mapping(_mapping(name, epochs))
    prepared = prepare(study, None, home)
    job = Job(job_id, study.mapping, "", None, str(home.root), LOCAL, server.uri, "", None)
    store, (run,) = Store(home.store), prepared.runs
    submission = open_submission(server, prepared, job, home)
    sync = MlflowSync(server, store, submission, {"study": name})
    store.run(run.key).begin_attempt()
    sync.follow(run)
    sync.flush()
    return sync, run, store


def test_how_a_run_ended_while_mlflow_was_away_is_sent_by_the_next_command(server, home, study):
    sync, run, store = _opened(server, home, study)
    _kill(home)
    store.run(run.key).writer(1).end("FAILED", "too hot", sync.submission.tags["job"])
    sync.end(run, RunEnd(State.FAILED, "too hot"))
    with pytest.raises(TrackingError):
        sync.flush()
    _restart(home)
    (found,) = reconcile(
        server, home, newest(server.reader, study, home.name), "its cluster is gone"
    ).runs
    assert (found.state, found.reason) == ("FAILED", "too hot")
    assert newest(server.reader, study, home.name).tracked.status == "KILLED"


def test_a_run_without_a_process_is_killed_with_the_reason(server, home, study):
    _opened(server, home, study)
    (found,) = reconcile(
        server, home, newest(server.reader, study, home.name), "its cluster is gone"
    ).runs
    assert found.state == "KILLED"
    assert found.reason == "its cluster is gone; submit the study again and it goes on"
    runs = server.connection.api.client.search_runs([server.writer.experiment(study)])
    states = {run.info.status for run in runs}
    assert states == {"KILLED"}


def test_a_submission_that_died_while_it_was_opened_is_not_left_running(server, home, study):
    tags = {"kind": "opening", "job": "dead", "home": home.name}
    half = server.writer.create_run(server.writer.experiment(study), "submission half", tags)
    _opened(server, home, study)
    assert server.reader.run(half).status == "KILLED"


def test_a_run_that_is_to_be_tried_again_is_pending_until_its_turn_comes(server, home, study):
    sync, run, _ = _opened(server, home, study)
    reconcile(server, home, newest(server.reader, study, home.name), "its cluster is gone")
    prepared = prepare(from_mapping(_mapping(study)), None, home)
    job = Job("next", {}, "", None, str(home.root), LOCAL, server.uri, "", None)
    assert open_submission(server, prepared, job, home).run_id == sync.submission.run_id
    (found,) = newest(server.reader, study, home.name).runs
    assert (found.state, found.run_id is None) == ("PENDING", False)
    reconcile(server, home, newest(server.reader, study, home.name), "it was stopped")
    (found,) = newest(server.reader, study, home.name).runs
    assert (found.state, found.reason.partition(";")[0]) == ("KILLED", "it was stopped")


def test_what_mlflow_refuses_is_not_offered_for_ten_minutes(server, home, study):
    sync, run, _ = _opened(server, home, study)
    (child,) = server.reader.children(sync.submission)
    server.connection.api.client.delete_run(child.run_id)
    sync.start()
    sync.end(run, RunEnd(State.FAILED, "too hot"))
    began = time.monotonic()
    assert not sync.stop(600)
    assert time.monotonic() - began < 300


def test_nothing_is_reconciled_while_a_driver_lives(server, home, study):
    _opened(server, home, study)
    with locked(home.driver_lock(study)):  # as a driver does, whatever its cluster may say of it
        (found,) = reconcile(
            server, home, newest(server.reader, study, home.name), "its cluster is gone"
        ).runs
        assert found.state == "RUNNING"


def test_another_home_on_the_same_server_is_left_alone(server, home, study, tmp_path):
    _opened(server, home, study)
    other = Home(tmp_path / "other").create()
    submission = newest(server.reader, study, home.name)
    assert is_alive(submission, other, None)
    (found,) = reconcile(server, other, submission, "its cluster is gone").runs
    assert (
        found.state == "RUNNING"
    )  # as it does for `stop`, which does not ask the cluster whether it lives
    sync, _, _ = _opened(server, other, study)
    runs = server.reader.submissions(study)
    assert {run.tags["home"] for run in runs} == {home.name, other.name}
    assert [run.status for run in runs] == ["RUNNING", "RUNNING"]
    assert sync.submission.tags["home"] == other.name


def test_what_a_driver_left_half_made_is_made_whole(server, home, study):
    sync, run, store = _opened(server, home, study)
    (child,) = server.reader.children(sync.submission)
    server.connection.api.client.delete_tag(child.run_id, "orchestrator.described")
    (store.run(run.key).path / "origin.json").unlink()
    again = MlflowSync(server, store, sync.submission, {})
    again.follow(run)
    again.flush()
    (child,) = server.reader.children(sync.submission)
    assert child.tags["described"] and store.run(run.key).origin()["run_id"] == child.run_id


def test_the_submission_of_another_plan_closes_what_was_left_running(server, home, study):
    sync, _, _ = _opened(server, home, study)
    _opened(server, home, study, epochs=2, job_id="next")
    states = {run.run_id: run.status for run in server.reader.submissions(study)}
    assert sorted(states.values()) == ["KILLED", "RUNNING"]
    assert states[sync.submission.run_id] == "KILLED"
    assert [run.status for run in server.reader.children(sync.submission)] == ["KILLED"]
