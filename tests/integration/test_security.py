"""What others on this machine and its network can reach, read and find out of running services."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
import requests
from mlflow import MlflowClient

from orchestrator.storage.home import Home
from tests.integration.command import CANARY

pytestmark = pytest.mark.slow

LOOPBACK = "127.0.0.1"
# one call for each kind of server that Ray starts; without the token none may be carried out
GRPC_CALLS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/PushTask",
    "/ray.rpc.ReporterService/GetTraceback",
    "/ray.rpc.LogService/ListLogs",
    "/ray.rpc.RayletDriver/ClusterInfo",
)
HTTP_CALLS = ("/api/jobs/", "/api/job_agent/jobs/", "/get_or_create_runtime_env")


def record(command, service: str) -> dict:
    """What the home says of a service: its addresses and its processes."""
    return json.loads((command.home / "services.json").read_text())[service]


def processes(command, service: str) -> list[psutil.Process]:
    """The service's first process and all that descend from it."""
    first = psutil.Process(record(command, service)["processes"][0]["pid"])
    return [first, *first.children(recursive=True)]


def listening(command, service: str) -> set[tuple[str, int]]:
    """(address, port) of every TCP port that the service listens on."""
    found = set()
    for process in processes(command, service):
        with contextlib.suppress(psutil.NoSuchProcess):
            open_now = process.net_connections("tcp")
            found |= {item.laddr for item in open_now if item.status == psutil.CONN_LISTEN}
    return {(str(ip).removeprefix("::ffff:"), int(port)) for ip, port in found}


def http(method: str, url: str, headers: dict[str, str] | None = None, **options) -> int | None:
    """The status that is answered; None where no server speaks HTTP. No proxy is asked."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.request(method, url, headers=headers, timeout=120, **options).status_code
        except requests.RequestException:
            return None


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def answers(address: str, token: str | None, calls=GRPC_CALLS) -> set[str | int | None]:
    """What `address` says to calls of every kind: gRPC's codes and HTTP's statuses."""
    said: set[str | int | None] = {
        http("POST", f"http://{address}{path}", bearer(token), data="{}") for path in HTTP_CALLS
    }
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        for name in calls:
            try:
                channel.unary_unary(name)(b"", metadata=list(bearer(token).items()), timeout=120)
                said.add("OK")
            except grpc.RpcError as error:
                said.add(error.code().name)
    return said - {"UNIMPLEMENTED", "UNAVAILABLE", None, 404, 405}


@pytest.fixture(scope="session")
def token(command) -> str:
    return (command.home / "ray_token").read_text()


# --- what can be reached -----------------------------------------------------------------------


def test_mlflow_and_the_dashboard_listen_on_loopback_alone(command):
    mlflow = int(record(command, "mlflow")["uri"].rpartition(":")[2])
    dashboard = int(record(command, "ray")["dashboard_url"].rpartition(":")[2])
    assert listening(command, "mlflow") == {(LOOPBACK, mlflow)}
    assert {ip for ip, port in listening(command, "ray") if port == dashboard} == {LOOPBACK}


@pytest.mark.parametrize("given", [None, "", "0" * 64, f"{CANARY}-ray"])
def test_no_port_of_ray_does_anything_without_the_token(finished, command, given):
    """Ray listens on every address of the machine, whatever it is told (ray 2.60)."""
    head = processes(command, "ray")[0]
    metrics = [word for word in head.cmdline() if "metrics-export" in word]
    figures = {int(metrics[0].partition("=")[2])}  # numbers for Prometheus; nothing can be done
    figures |= {int(head.environ()[f"{name}_METRIC_PORT"]) for name in ("AUTOSCALER", "DASHBOARD")}
    open_ports = sorted(item for item in listening(command, "ray") if item[1] not in figures)
    assert len(open_ports) >= 7
    addresses = [f"{LOOPBACK if ip in ('::', '0.0.0.0') else ip}:{port}" for ip, port in open_ports]
    with ThreadPoolExecutor(len(addresses)) as pool:  # a port without gRPC lets it wait
        heard = list(pool.map(lambda address: answers(address, given), addresses))
    for opened, said in zip(open_ports, heard, strict=True):
        assert said <= {"UNAUTHENTICATED", 401, 403}, opened
        assert said or opened not in listening(command, "ray"), opened


def test_with_the_token_the_same_calls_are_answered(command, token):
    ray = record(command, "ray")
    assert "OK" in answers(ray["address"], token, GRPC_CALLS[:1])
    assert http("GET", f"{ray['dashboard_url']}/api/jobs/", bearer(token)) == 200


@pytest.mark.parametrize(("given", "status"), [(None, 401), ("0" * 64, 403)])
def test_the_jobs_cannot_be_seen_or_sent_without_the_token(command, given, status):
    jobs = f"{record(command, 'ray')['dashboard_url']}/api/jobs/"
    assert http("GET", jobs, bearer(given)) == status
    assert http("POST", jobs, bearer(given), json={"entrypoint": "touch x"}) == status


def test_a_page_of_another_site_cannot_use_mlflow_through_the_user_s_browser(command):
    uri = f"{record(command, 'mlflow')['uri']}/api/2.0/mlflow/experiments"
    read, write, new = f"{uri}/get-by-name?experiment_name=Default", f"{uri}/create", {"name": "x"}
    assert http("GET", read) == 200
    assert http("GET", read, {"Host": "evil.example"}) == 403  # its name now means 127.0.0.1
    assert http("POST", write, {"Origin": "http://evil.example"}, json=new) == 403
    assert http("GET", f"{uri}/get-by-name?experiment_name=x") == 404


def test_ray_asks_for_the_token_whatever_the_user_s_shell_says(command):
    started = [process for process in processes(command, "ray")
               if process.name().startswith(("python", "gcs_server", "raylet"))]  # fmt: skip
    assert {"gcs_server", "raylet"} <= {process.name() for process in started}
    for process in started:
        environment = process.environ()
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN_PATH"] == str(command.home / "ray_token")
        assert "RAY_AUTH_TOKEN" not in environment


# --- what can be read --------------------------------------------------------------------------


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


def ray_temp(command) -> Path:
    return Home(command.home.resolve()).ray_temp


def test_home_token_and_record_are_the_user_s_alone(command):
    assert mode(command.home) == 0o700
    assert mode(command.home / "ray_token") == mode(command.home / "services.json") == 0o600


def test_ray_s_sockets_logs_and_code_are_the_user_s_alone(command):
    """A user who may write there can give the study's driver and workers other code to run."""
    way = [ray_temp(command), *ray_temp(command).parents]
    assert [folder for folder in way if mode(folder) & 0o077 == 0]


def files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


def holding(word: str, command) -> set[Path]:
    """Every file of the working folder, the home and Ray's folder in which a word stands."""
    found = set()
    for path in files(command.folder, ray_temp(command)):
        try:
            if word.encode() in path.read_bytes():
                found.add(path)
        except FileNotFoundError:
            continue  # services run: a temporary file is gone
    return found


def test_the_token_stands_in_its_own_file_and_in_no_other(finished, command, token):
    assert len(token) == 64
    assert holding(token, command) == {command.home / "ray_token"}


def test_no_secret_of_the_user_s_environment_stands_in_a_file(finished, command):
    assert holding("Does it run?", command) > {command.folder / "tiny.yaml"}  # the search finds
    assert holding(CANARY, command) == set()


def test_no_secret_stands_in_mlflow_or_is_said(finished, command, token):
    client = MlflowClient(record(command, "mlflow")["uri"])
    experiments = client.search_experiments()
    runs = client.search_runs([experiment.experiment_id for experiment in experiments])
    said = json.dumps([run.to_dictionary() for run in runs] + [dict(e.tags) for e in experiments])
    said += finished.stdout + finished.stderr
    said += str(command.run("status"))
    assert "orchestrator.run_key" in said and str(command.home / "ray_token") in said
    assert CANARY not in said and token not in said


def test_no_secret_stands_on_a_command_line(finished, command, token):
    lines = [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    assert any(str(ray_temp(command)) in line for line in lines)
    assert not [line for line in lines if CANARY in line or token in line]
