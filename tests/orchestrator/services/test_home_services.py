"""The services of a home, with a real MLflow server: where their state lies, whom they answer."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.services import home_services, ray_head
from orchestrator.services.ports import free_ports
from orchestrator.services.record import ServiceError
from orchestrator.storage.home import Home
from orchestrator.tracking.mlflow_writer import Tracker

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[3]
_START = """
import pathlib, sys
from orchestrator.config.mlflow_settings import MlflowSettings
from orchestrator.services import home_services
from orchestrator.storage.home import Home
home = Home(pathlib.Path(sys.argv[1]))
home_services.start(home, MlflowSettings(), print, only=("mlflow",))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose path means something else in an address, with a running MLflow."""
    home = Home(tmp_path_factory.mktemp("x") / "a %41?b#c [d] \u00e4 \u65e5;'").create()
    # in a process of its own, as a command: the server outlives it
    subprocess.run([sys.executable, "-c", _START, str(home.root)], check=True, cwd=REPOSITORY)
    yield home
    home_services.stop(home)


@pytest.fixture
def uri(home: Home) -> str:
    return str(home_services.find(home, MlflowSettings()).mlflow_uri)


def test_all_state_lies_in_a_home_of_any_path(home: Home, uri: str) -> None:
    tracker = Tracker(uri)
    run_id = tracker.writer.create_run(tracker.writer.experiment("x"), "x", {})
    tracker.writer.log_text(run_id, "hello", "notes/a.txt")
    assert tracker.reader.text(run_id, "notes/a.txt") == "hello"
    assert (home.root / "mlflow.db").stat().st_size
    assert len(list((home.root / "artifacts").rglob("a.txt"))) == 1
    assert [path.name for path in home.root.parent.iterdir()] == [home.root.name]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8080", 200),  # forwarded from another machine
        ("127.0.0.1", 200),
        ("[::1]:5000", 200),
        ("10.evil.example", 403),
        ("192.168.evil.example:80", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:5000", 403),
    ],
)
def test_mlflow_answers_to_its_own_names_only(uri: str, host: str, status: int) -> None:
    address = f"{uri}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(address, headers={"Host": host}, timeout=120).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://evil.example", 403), ("http://localhost:1", 200)]
)
def test_a_page_of_another_origin_writes_nothing(uri: str, origin: str, status: int) -> None:
    answer = requests.post(
        f"{uri}/api/2.0/mlflow/experiments/create",
        json={"name": f"from {origin}"},
        headers={"Origin": origin},
        timeout=120,
    )
    assert answer.status_code == status


@pytest.mark.parametrize("record", ["", "[]", '{"mlflow": {"processes": 5}}'])
def test_a_damaged_record_of_services_ends_none_that_run(home: Home, record: str) -> None:
    before = home.services.read_text("utf-8")
    home.services.write_text(record, "utf-8")
    try:
        with pytest.raises(ServiceError, match="is damaged while services of this home run"):
            home_services.start(home, MlflowSettings(), lambda text: None, only=("mlflow",))
    finally:
        home.services.write_text(before, "utf-8")
    assert home_services.find(home, MlflowSettings()).mlflow_uri is not None


def test_a_service_that_ends_while_starting_is_started_once_more_then_named_with_its_log(
    tmp_path: Path,
) -> None:
    home, said = Home(tmp_path / "home").create(), []
    nowhere = MlflowSettings(host="203.0.113.7")  # no address of this machine
    with pytest.raises(ServiceError, match=r"mlflow ended while starting .*mlflow\.log"):
        home_services.start(home, nowhere, said.append, only=("mlflow",))
    assert len(said) == 2 and said[1].endswith("starting it once more ...")
    assert "203.0.113.7" in (home.logs / "mlflow.log").read_text("utf-8")
    assert home_services.stop(home) == []


def test_a_head_without_its_agent_is_started_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lives on without, and starts no job. Here another process has the port of the agent."""
    home, said = Home(tmp_path / "home").create(), []
    agent = ray_head._PORTS.index("dashboard-agent-listen-port")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        draws = [taken.getsockname()[1]]

        def ports(count: int) -> list[int]:
            free = free_ports(count)
            return [*free[:agent], draws.pop(), *free[agent + 1 :]] if draws else free

        def say(line: str) -> None:
            said.append(line)
            if "once more" in line:
                monkeypatch.undo()

        monkeypatch.setattr(ray_head, "free_ports", ports)
        monkeypatch.setattr(home_services, "_AGENT_SECONDS", 5.0)
        try:
            running = home_services.start(home, MlflowSettings(), say, only=("ray",))
            assert running.ray is not None and ray_head.has_agent(home)
        finally:
            home_services.stop(home)
    assert "starting it once more" in said[-1]
