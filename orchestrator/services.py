"""The local Ray head and MLflow server of one home: start, find, stop.

Every port is chosen free, each head has its own short temporary folder and its own token, and what
was started here is stopped by its recorded process ids, so that two homes never meet.
"""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.faults import UserError
from orchestrator.home import Home, locked, read_json, write_json
from orchestrator.settings import MlflowSettings

_START_SECONDS = 120.0
_PROBE_SECONDS = 3.0


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
    """What answers now; None for what does not."""

    ray: RayService | None
    mlflow_uri: str | None


def start(
    home: Home,
    settings: MlflowSettings,
    say: Callable[[str], None],
    only: Sequence[str] = ("ray", "mlflow"),
) -> Services:
    """Find what runs, start what does not, and wait until it answers. Raises ServiceError."""
    with locked(home.root / ".services.lock"):
        found = find(home, settings)
        wanted: dict[str, tuple[subprocess.Popen[bytes], dict[str, Any]]] = {}
        if found.ray is None and "ray" in only:
            say("starting Ray ...")
            wanted["ray"] = _start_ray(home)
        if found.mlflow_uri is None and settings.tracking_uri is None:
            say("starting MLflow ...")
            wanted["mlflow"] = _start_mlflow(home, settings)
        elif found.mlflow_uri is None:
            raise ServiceError(f"MLflow does not answer at {settings.tracking_uri} (mlflow.yaml)")
        record = read_json(home.services) or {}
        for name, (process, entry) in wanted.items():
            record[name] = entry | {"processes": [_identity(psutil.Process(process.pid))]}
            write_json(home.services, record, 0o600)
        for name, (process, _) in wanted.items():
            _wait(home, settings, name, process)
            record[name]["processes"] = [_identity(p) for p in _tree(process.pid)]
            write_json(home.services, record, 0o600)
        return find(home, settings)


def is_loopback(url: str) -> bool:
    """Whether only this machine can reach the address."""
    return urllib.parse.urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def find(home: Home, settings: MlflowSettings) -> Services:
    """What answers of the home's services; starts nothing."""
    record = read_json(home.services) or {}
    ray, uri = None, settings.tracking_uri
    if "ray" in record and _ray_answers(record["ray"], home):
        entry = record["ray"]
        ray = RayService(entry["address"], entry["dashboard_url"], home.ray_token)
    if uri is None and "mlflow" in record:
        uri = record["mlflow"]["uri"]
    return Services(ray, uri if uri and _mlflow_answers(uri) else None)


def stop(home: Home) -> list[str]:
    """End every process of the home's services. Returns what was stopped."""
    if not home.services.is_file():
        return []
    with locked(home.root / ".services.lock"):
        record = read_json(home.services) or {}
        stopped = []
        for name, entry in record.items():
            processes = [p for item in entry["processes"] if (p := _alive(item))]
            if processes:
                _end(processes)
                stopped.append(name)
        home.services.unlink(missing_ok=True)
    return stopped


def login(ray: RayService) -> dict[str, str]:
    """The headers that the cluster's dashboard asks for."""
    if ray.token_path is None:
        return {}
    return {"Authorization": f"Bearer {ray.token_path.read_text(encoding='utf-8').strip()}"}


# --- Ray ---------------------------------------------------------------------------------------


def _start_ray(home: Home) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    if not home.ray_token.is_file():
        _write_secret(home.ray_token, secrets.token_hex(32))
    os.chmod(home.ray_token, 0o600)
    home.ray_temp.mkdir(mode=0o700, exist_ok=True)
    names = (
        "port",
        "dashboard-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "ray-client-server-port",
        "node-manager-port",
        "object-manager-port",
        "metrics-export-port",
        "runtime-env-agent-port",
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
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
    extra = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(home.ray_token)}
    process = _spawn(command, home.logs / "ray.log", extra)
    address = f"{_node_address()}:{ports['port']}"
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    return process, {"address": address, "dashboard_url": url}


def _ray_answers(entry: Mapping[str, Any], home: Home) -> bool:
    if not home.ray_token.is_file():
        return False
    ray = RayService(entry["address"], entry["dashboard_url"], home.ray_token)
    return _get(f"{ray.dashboard_url}/api/jobs/", login(ray))


def _node_address() -> str:
    """The address that Ray gives its head on this machine."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


# --- MLflow ------------------------------------------------------------------------------------


def _start_mlflow(
    home: Home, settings: MlflowSettings
) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    port = free_ports(1)[0] if settings.port == "auto" else settings.port
    command = [sys.executable, "-m", "mlflow", "server", "--workers=1"]
    command += [f"--host={settings.host}", f"--port={port}"]
    command += [
        f"--backend-store-uri={settings.backend_store_uri or f'sqlite:///{home.root}/mlflow.db'}",
        f"--artifacts-destination={settings.artifacts_destination or home.root / 'artifacts'}",
    ]
    extra = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"
    }  # seven processes that serve only LLM jobs
    process = _spawn(command, home.logs / "mlflow.log", extra)
    reached = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return process, {"uri": f"http://{reached}:{port}"}


def _mlflow_answers(uri: str) -> bool:
    return _get(f"{uri.rstrip('/')}/health", {})


# --- processes ---------------------------------------------------------------------------------


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("", 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _spawn(command: Sequence[str], log: Path, extra: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process of its own session, so that Ctrl-C here does not reach it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env={**kept, **extra},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )


def _wait(
    home: Home, settings: MlflowSettings, name: str, process: subprocess.Popen[bytes]
) -> None:
    log, deadline = home.logs / f"{name}.log", time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = find(home, settings)
        if (found.ray if name == "ray" else found.mlflow_uri) is not None:
            return
        if process.poll() is not None:
            raise ServiceError(
                f"{name} ended while starting (exit {process.returncode}): see {log}"
            )
        time.sleep(0.2)
    _end(_tree(process.pid))
    raise ServiceError(f"{name} did not answer within {_START_SECONDS:.0f} s: see {log}")


def _get(url: str, headers: Mapping[str, str]) -> bool:
    request = urllib.request.Request(url, headers=dict(headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_PROBE_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _write_secret(path: Path, secret: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(secret)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _identity(process: psutil.Process) -> dict[str, Any]:
    """A process id is used again some day: with its start time it is unique."""
    return {"pid": process.pid, "created": process.create_time()}


def _alive(item: Mapping[str, Any]) -> psutil.Process | None:
    try:
        process = psutil.Process(int(item["pid"]))
        return process if abs(process.create_time() - item["created"]) < 1.0 else None
    except psutil.NoSuchProcess:
        return None


def _end(processes: list[psutil.Process]) -> None:
    """Ask them and their children to end, then make them."""
    every = {p.pid: p for parent in processes for p in [parent, *_tree(parent.pid)]}
    for process in every.values():
        _signal(process.terminate)
    _, left = psutil.wait_procs(list(every.values()), timeout=8)
    for process in left:
        _signal(process.kill)
    psutil.wait_procs(left, timeout=5)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
