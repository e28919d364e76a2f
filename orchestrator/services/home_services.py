"""Start, find and stop the Ray head and the MLflow server of a home.

Every home has free ports, a short temporary folder and a token of its own, and stops only processes
that it has recorded or that bear its mark: two homes on a machine never touch each other.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import psutil

from orchestrator.config.mlflow_settings import MlflowSettings, bypass_proxies, trouble_at
from orchestrator.services import mlflow_server, ray_head
from orchestrator.services.processes import alive, end, identity, marked, tree
from orchestrator.services.record import (
    RayService,
    ServiceError,
    Services,
    Started,
    mark_of,
    services_of,
)
from orchestrator.storage.files import locked, write_json
from orchestrator.storage.home import Home

_START_SECONDS = 300.0  # a busy machine takes minutes; a service that ends is seen at once
_TRIES = 2  # a head of Ray ends when its parts are not up within 15 s
_PATIENCE_SECONDS = 30.0
_AGENT_SECONDS = 60.0  # that a node's agent may come up later than the node


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
        if found.mlflow_uri is None:
            starters["mlflow"] = _mlflow_starter(home, settings, found, record)
        if found.ray is None and "ray" in only:
            say("starting Ray ...")
            starters = {"ray": partial(ray_head.start, home, gauges), **starters}
        if "mlflow" in starters:
            say("starting MLflow ...")
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


def _mlflow_starter(
    home: Home, settings: MlflowSettings, found: Services, record: Mapping[str, Any]
) -> Callable[[], Started]:
    """Return what starts MLflow. Raises ServiceError where nothing could be started."""
    if settings.tracking_uri is not None:
        raise ServiceError(f"{found.trouble} (address in mlflow.yaml)")
    mlflow_server.check(settings)
    return partial(mlflow_server.start, home, settings, record.get("mlflow", {}).get("port"))


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
    record = services_of(home) or {}
    ray, uri = None, settings.tracking_uri
    if (entry := record.get("ray")) and _patient(partial(ray_head.answers, entry, home), entry):
        ray = RayService(entry["address"], entry["dashboard_url"], home.ray_token)
    entry = record.get("mlflow")
    if uri is not None:
        trouble = trouble_at(f"{uri.rstrip('/')}/health", {})
        return Services(ray, None, f"MLflow at {uri} {trouble}") if trouble else Services(ray, uri)
    # with no process of this home alive, the port may be another home's by now
    if entry and any(map(alive, entry["processes"])):
        uri = str(entry["uri"])
        return Services(ray, uri if _patient(partial(mlflow_server.answers, uri), entry) else None)
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
        record = services_of(home) or {}
        stopped = []
        for name in ("ray", "mlflow"):
            processes = _left(home, record, name)
            if processes:
                end(processes)
                stopped.append(name)
        home.services.unlink(missing_ok=True)
    return stopped


def _known_services(home: Home) -> dict[str, Any]:
    """Return the record of the home's services. Raises ServiceError where it is damaged while some
    of them run: they would be taken for dead, and ended."""
    record = services_of(home)
    if record is None and home.services.is_file():
        if any(marked(mark_of(home, name)) for name in ("ray", "mlflow")):
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
    return list({p.pid: p for p in [*living, *marked(mark_of(home, name))]}.values())


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
        if name == "ray" and services.ray is not None and ray_head.has_nodes(services.ray):
            since = since or time.monotonic()
            if ray_head.has_agent(home):
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
