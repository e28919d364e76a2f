"""Start, find and stop the Ray head and the MLflow server of a home.

Every home has free ports, a short temporary folder and a token of its own, and stops only processes
that it has recorded or that bear its mark: two homes on a machine never touch each other.
"""

import contextlib
import os
import secrets
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from orchestrator.config.errors import UserError
from orchestrator.config.mlflow_settings import (
    MlflowSettings,
    allowed_options,
    bypass_proxies,
    in_address,
    trouble_at,
)
from orchestrator.execution.processes import (
    Record,
    alive,
    end,
    free_ports,
    identity,
    is_free,
    marked,
    spawn,
    tree,
)
from orchestrator.rest.ray_api import RayApi, RayApiError, environment_login
from orchestrator.storage.files import locked, read_json, write_json, write_secret
from orchestrator.storage.home import Home
from orchestrator.warm.switch import JOB_SETTINGS, ONE_MACHINE, ray_command

_START_SECONDS = 300.0  # a busy machine takes minutes; a service that ends is seen at once
_TRIES = 2  # a head of Ray ends when its parts are not up within 15 s
_PATIENCE_SECONDS = 30.0
_PROBE_SECONDS = 3.0
_AGENT_SECONDS = 60.0  # that a node's agent may come up later than the node
_MLFLOW_APP = Path(__file__).parents[1] / "pages" / "mlflow_app.py"
_PORTS = (
    "port dashboard-port dashboard-agent-listen-port dashboard-agent-grpc-port "
    "ray-client-server-port node-manager-port object-manager-port metrics-export-port "
    "runtime-env-agent-port"
).split()

Started = tuple[subprocess.Popen[bytes], dict[str, Any]]  # a service's process, and its record


class ServiceError(UserError):
    """A service could not be started or reached; one line, with where its log is."""


@dataclass(frozen=True)
class RayService:
    """A Ray cluster. token_path: None where the cluster's own environment says how to log in."""

    address: str
    dashboard_url: str
    token_path: Path | None
    local: bool = True


@dataclass(frozen=True)
class Services:
    """Holds the services that answer now; None for one that does not."""

    ray: RayService | None
    mlflow_uri: str | None
    trouble: str = ""  # why the MLflow that mlflow.yaml names is not among them


def start(
    home: Home,
    settings: MlflowSettings,
    say: Callable[[str], None],
    only: Sequence[str] = ("ray", "mlflow"),
    gauges: bool = False,
) -> Services:
    """Start what does not run, Ray with metrics if `gauges`; wait for it. Raises ServiceError."""
    with locked(home.services_lock):
        found = find(home, settings)
        record = _known_services(home)
        starters = {}
        if found.ray is None and "ray" in only:
            say("starting Ray ...")
            starters["ray"] = partial(_start_ray, home, gauges)
        if found.mlflow_uri is None and settings.tracking_uri is None:
            say("starting MLflow ...")
            port = record.get("mlflow", {}).get("port")
            starters["mlflow"] = partial(_start_mlflow, home, settings, port)
        elif found.mlflow_uri is None:
            raise ServiceError(f"{found.trouble} (address in mlflow.yaml)")
        started = {n: _begin(home, record, n, begin) for n, begin in starters.items()}
        for name, begin in starters.items():
            for left in reversed(range(_TRIES)):
                if _is_up(home, settings, name, started[name]):
                    break
                status, log = started[name].poll(), home.logs / f"{name}.log"
                ended = f"{name} ended while starting (exit {status}): see {log}"
                if not left:
                    raise ServiceError(ended)
                say(f"{ended}; starting it once more ...")
                started[name] = _begin(home, record, name, begin)
            record[name]["processes"] = [identity(p) for p in tree(started[name].pid)]
            write_json(home.services, record, 0o600)
        return find(home, settings)


def _begin(
    home: Home, record: dict[str, Any], name: str, begin: Callable[[], Started]
) -> subprocess.Popen[bytes]:
    """Start a service, after what is left of an earlier one has ended, and record its process."""
    _end_rest(home, record, name)
    process, entry = begin()
    record[name] = entry | {"processes": [identity(psutil.Process(process.pid))]}
    write_json(home.services, record, 0o600)
    return process


def find(home: Home, settings: MlflowSettings) -> Services:
    """Return which of the home's services answer; start nothing."""
    bypass_proxies()
    record = _services_of(home) or {}
    ray, uri = None, settings.tracking_uri
    if (entry := record.get("ray")) and _patient(partial(_ray_answers, entry, home), entry):
        ray = RayService(entry["address"], entry["dashboard_url"], home.ray_token)
    entry = record.get("mlflow")
    if uri is not None:
        trouble = trouble_at(f"{uri.rstrip('/')}/health", {})
        return Services(ray, None, f"MLflow at {uri} {trouble}") if trouble else Services(ray, uri)
    # with no process of this home alive, the port may be another home's by now
    if entry and any(map(alive, entry["processes"])):
        uri = str(entry["uri"])
        return Services(ray, uri if _patient(partial(_mlflow_answers, uri), entry) else None)
    return Services(ray, None)


def _patient(answers: Callable[[], bool], entry: Mapping[str, Any]) -> bool:
    """Return whether a service answers, asked again as long as its first process lives: that one
    ends with the service, so while it is there the service is busy, or starting."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not answers():
        if time.monotonic() > deadline or not any(map(alive, entry["processes"][:1])):
            return False
        time.sleep(0.2)
    return True


def stop(home: Home) -> list[str]:
    """End every process of the home's services. Returns what was stopped."""
    if not home.services.is_file():
        return []
    with locked(home.services_lock):
        record = _services_of(home) or {}
        stopped = []
        for name in ("ray", "mlflow"):
            processes = _left(home, record, name)
            if processes:
                end(processes)
                stopped.append(name)
        home.services.unlink(missing_ok=True)
    return stopped


def _services_of(home: Home) -> dict[str, Any] | None:
    """Return the record of the home's services; None where it is damaged or absent."""
    return read_json(home.services, Record)


def _known_services(home: Home) -> dict[str, Any]:
    """Return the record of the home's services. Raises ServiceError where it is damaged while some
    of them run: they would be taken for dead, and ended."""
    record = _services_of(home)
    if record is None and home.services.is_file():
        if any(marked(_mark(home, name)) for name in ("ray", "mlflow")):
            raise ServiceError(
                f"{home.services} is damaged while services of this home run: stop them with "
                "`down`, then try again"
            )
    return record or {}


def _end_rest(home: Home, record: Mapping[str, Any], name: str) -> None:
    """End what is left of a service that has died. Raises ServiceError when it lives and does not
    answer, since studies may depend on it."""
    if any(map(alive, record.get(name, {}).get("processes", [])[:1])):
        raise ServiceError(f"{name} runs but does not answer: try again, or stop it with `down`")
    end(_left(home, record, name))


def _left(home: Home, record: Mapping[str, Any], name: str) -> list[psutil.Process]:
    """Return the living processes of a service: the recorded ones and their descendants."""
    recorded = record.get(name, {}).get("processes", [])
    living = [process for item in recorded if (process := alive(item))]
    return list({p.pid: p for p in [*living, *marked(_mark(home, name))]}.values())


def _mark(home: Home, name: str) -> str:
    return f"{name} of {home.root}"


def login(ray: RayService) -> dict[str, str]:
    """Return the HTTP headers that the cluster's dashboard requires."""
    if ray.token_path is None:
        return environment_login()
    return {"Authorization": f"Bearer {ray.token_path.read_text(encoding='utf-8').strip()}"}


def _start_ray(home: Home, gauges: bool = False) -> Started:
    if not home.ray_token.is_file() or not home.ray_token.stat().st_size:
        home.ray_token.unlink(missing_ok=True)
        write_secret(home.ray_token, secrets.token_hex(32))
    os.chmod(home.ray_token, 0o600)
    _own_folder(home.ray_temp.parent)
    *numbers, scaling, dashboard = free_ports(len(_PORTS) + 2)
    ports = dict(zip(_PORTS, numbers, strict=True))
    command = [*ray_command(home.ray_temp.parent / "warm"), "start", "--head", "--block"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += [
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--dashboard-host=127.0.0.1",
        "--include-dashboard=true",
        f"--temp-dir={home.ray_temp}",
        "--object-store-memory=500000000",  # only weights' addresses and metrics pass through it
        "--disable-usage-stats",
    ]
    extra = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home.ray_token),
        "RAY_USAGE_STATS_ENABLED": "0",  # as --disable-usage-stats sets it a little later
        "RAY_enable_metrics_collection": str(int(gauges)),  # its port asks for no token
        "AUTOSCALER_METRIC_PORT": str(scaling),  # numbers to read; the same for every head, else
        "DASHBOARD_METRIC_PORT": str(dashboard),
        **JOB_SETTINGS,
        **ONE_MACHINE,
    }
    process = spawn(command, home.logs / "ray.log", _mark(home, "ray"), extra)
    address = f"{_node_address()}:{ports['port']}"
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    agent = ports["dashboard-agent-listen-port"]
    return process, {"address": address, "dashboard_url": url, "agent_port": agent}


def _own_folder(path: Path) -> None:
    """Make a folder that no other user can enter. Another user could have guessed its name and made
    it: raises ServiceError then."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ServiceError(f"{path} belongs to another user or is no folder: remove it")
    path.chmod(0o700)


def _ray_answers(entry: Mapping[str, Any], home: Home) -> bool:
    if not home.ray_token.is_file():
        return False
    ray = RayService(entry["address"], entry["dashboard_url"], home.ray_token)
    return not trouble_at(f"{ray.dashboard_url}/api/jobs/", login(ray))


def _has_nodes(ray: RayService) -> bool:
    """Tell whether a node is alive: the dashboard answers earlier, and a head without one ends."""
    try:
        return RayApi(ray.dashboard_url, partial(login, ray)).has_nodes()
    except RayApiError:
        return False


def _has_agent(home: Home) -> bool:
    """Return whether the head's agent listens. A head lives on without it, and starts no job."""
    entry = (_services_of(home) or {}).get("ray")
    if entry is None or "agent_port" not in entry:
        return False
    host = entry["address"].rpartition(":")[0]
    with socket.socket() as client:
        client.settimeout(_PROBE_SECONDS)
        return client.connect_ex((host, entry["agent_port"])) == 0


def _node_address() -> str:
    """Return the address that Ray gives its head on this machine."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def _start_mlflow(home: Home, settings: MlflowSettings, last_port: int | None) -> Started:
    """last_port: of the server that died, on which a running study still calls it."""
    port = settings.port
    if port == "auto":
        port = last_port if last_port and is_free(last_port) else free_ports(1)[0]
    command = [sys.executable, "-P", str(_MLFLOW_APP), "server", "--workers=1"]
    command += [f"--host={settings.host}", f"--port={port}", *allowed_options(settings)]
    # below its working folder, the home: in an address `%`, `?` and `#` have meanings of their own
    command += [f"--artifacts-destination={settings.artifacts_destination or 'artifacts'}"]
    extra = {
        # it may hold a password, and every user can read a command line
        "MLFLOW_BACKEND_STORE_URI": settings.backend_store_uri or "sqlite:///mlflow.db",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that serve only LLM jobs
        "MLFLOW_DISABLE_TELEMETRY": "true",  # of the server, and of its page
    }
    log, mark = home.logs / "mlflow.log", _mark(home, "mlflow")
    process = spawn(command, log, mark, extra, str(home.root))
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return process, {"uri": f"http://{in_address(reached)}:{port}", "port": port}


def _mlflow_answers(uri: str) -> bool:
    return not trouble_at(f"{uri.rstrip('/')}/health", {})


def _is_up(
    home: Home, settings: MlflowSettings, name: str, process: subprocess.Popen[bytes]
) -> bool:
    """Wait until a service answers. Returns False when its process has ended. Raises ServiceError
    when it does neither for minutes."""
    deadline, since = time.monotonic() + _START_SECONDS, None
    while time.monotonic() < deadline:
        services = find(home, settings)
        if name == "mlflow" and services.mlflow_uri is not None:
            return True
        if name == "ray" and services.ray is not None and _has_nodes(services.ray):
            since = since or time.monotonic()
            if _has_agent(home):
                return True
            if time.monotonic() - since > _AGENT_SECONDS:
                end(tree(process.pid))
                return False
        if process.poll() is not None:
            return False
        time.sleep(0.2)
    end(tree(process.pid))
    raise ServiceError(
        f"{name} did not answer within {_START_SECONDS:.0f} s: see {home.logs / f'{name}.log'}"
    )
