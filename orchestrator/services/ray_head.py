"""Start the Ray head of a home, and ask whether it answers."""

import contextlib
import os
import secrets
import socket
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.config.mlflow_settings import trouble_at
from orchestrator.rest.ray_api import RayApi, RayApiError, environment_login
from orchestrator.services.ports import free_ports
from orchestrator.services.processes import spawn
from orchestrator.services.record import RayService, ServiceError, Started, mark_of, services_of
from orchestrator.storage.files import write_secret
from orchestrator.storage.home import Home
from orchestrator.warm.switch import JOB_SETTINGS, ONE_MACHINE, ray_command

_PROBE_SECONDS = 3.0
_PORTS = (
    "port dashboard-port dashboard-agent-listen-port dashboard-agent-grpc-port "
    "ray-client-server-port node-manager-port object-manager-port metrics-export-port "
    "runtime-env-agent-port"
).split()


def start(home: Home, gauges: bool = False) -> Started:
    """Start Ray's head, with metrics if `gauges`. Raises ServiceError."""
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
    process = spawn(command, home.logs / "ray.log", mark_of(home, "ray"), extra)
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


def login(ray: RayService) -> dict[str, str]:
    """Return the HTTP headers that the cluster's dashboard requires."""
    if ray.token_path is None:
        return environment_login()
    return {"Authorization": f"Bearer {ray.token_path.read_text(encoding='utf-8').strip()}"}


def answers(entry: Mapping[str, Any], home: Home) -> bool:
    """Return whether the head of a record answers."""
    if not home.ray_token.is_file():
        return False
    ray = RayService(entry["address"], entry["dashboard_url"], home.ray_token)
    return not trouble_at(f"{ray.dashboard_url}/api/jobs/", login(ray))


def has_nodes(ray: RayService) -> bool:
    """Tell whether a node is alive: the dashboard answers earlier, and a head without one ends."""
    try:
        return RayApi(ray.dashboard_url, partial(login, ray)).has_nodes()
    except RayApiError:
        return False


def has_agent(home: Home) -> bool:
    """Return whether the head's agent listens. A head lives on without it, and starts no job."""
    entry = (services_of(home) or {}).get("ray")
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
