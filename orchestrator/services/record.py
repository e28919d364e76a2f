"""Describes what a home knows of its services: services.json, and which of them answer."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from orchestrator.config.errors import UserError
from orchestrator.storage.files import read_json
from orchestrator.storage.home import Home

Started = tuple[subprocess.Popen[bytes], dict[str, Any]]  # a service's process, and its record


class Identity(TypedDict):
    """Names a process as `identity` writes it."""

    pid: int
    created: float


class Entry(TypedDict):
    """Describes a service in services.json: where it answers, and its processes."""

    processes: list[Identity]
    address: NotRequired[str]  # of Ray
    dashboard_url: NotRequired[str]
    uri: NotRequired[str]  # of MLflow
    port: NotRequired[int]
    agent_port: NotRequired[int]  # of Ray's agent, which starts jobs


class Record(TypedDict):
    """Describes what services.json holds."""

    ray: NotRequired[Entry]
    mlflow: NotRequired[Entry]


class ServiceError(UserError):
    """Says that a service could not be started or reached; one line, with where its log is."""


@dataclass(frozen=True)
class RayService:
    """Names a Ray cluster. token_path: None where the cluster's own environment says how to log
    in."""

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


def services_of(home: Home) -> dict[str, Any] | None:
    """Return the record of the home's services; None where it is damaged or absent."""
    return read_json(home.services, Record)


def mark_of(home: Home, name: str) -> str:
    """Return the mark of all processes of a service. name: `ray` or `mlflow`."""
    return f"{name} of {home.root}"
