"""Call the REST API of Ray's dashboard (https://docs.ray.io/en/latest/cluster/running-applications/
job-submission/rest.html): what is known of jobs, and their end."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from orchestrator.config.errors import one_line
from orchestrator.config.mlflow_settings import through_proxy
from orchestrator.rest.session import Login, NoAnswer, Session

_LENGTH = 200  # letters of a message
_SECONDS = 60.0  # a head whose machine is busy takes long to answer


class RayApiError(Exception):
    """The dashboard did not answer as it should; the message goes on after `Ray at <address>`."""


def environment_login() -> dict[str, str]:
    """Return the HTTP headers with the token that Ray's own client would take: that of the
    environment, else ~/.ray/auth_token. None unless `RAY_AUTH_MODE=token`."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
        token = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    return {"Authorization": f"Bearer {token}"} if token else {}


class RayApi:
    """The jobs of one cluster. Methods raise RayApiError."""

    def __init__(self, dashboard_url: str, headers: Callable[[], Mapping[str, str]]) -> None:
        """headers: of every request, with the token."""
        self._session = Session(dashboard_url, lambda: Login(headers()), _SECONDS)

    def version(self) -> str:
        """Return the version of Ray."""
        return str(self._ask("GET", "/api/version").get("ray_version"))

    def has_nodes(self) -> bool:
        """Tell whether a node of the cluster is alive."""
        answer = self._ask("GET", "/nodes?view=summary")
        try:
            return any(node["raylet"]["state"] == "ALIVE" for node in answer["data"]["summary"])
        except (KeyError, TypeError):  # it is not ready yet
            return False

    def jobs(self) -> list[dict[str, Any]]:
        """Return all jobs that the cluster knows, as its API describes them."""
        answer = self._ask("GET", "/api/jobs/")
        return list(answer)

    def job(self, job_id: str) -> dict[str, Any] | None:
        """Return a job; None where there is none of that id."""
        answer = self._send("GET", f"/api/jobs/{quote(job_id)}")
        if answer.status_code == requests.codes.not_found and "does not exist" in answer.text:
            return None
        return dict(self._read(answer))

    def logs(self, job_id: str) -> str:
        """Return the output of a job's driver."""
        return str(self._ask("GET", f"/api/jobs/{quote(job_id)}/logs").get("logs", ""))

    def stop(self, job_id: str) -> None:
        """Ask the cluster to end a job; return at once."""
        self._ask("POST", f"/api/jobs/{quote(job_id)}/stop")

    def keep(self, name: str, content: bytes) -> None:
        """Put content into the memory of the head, where Ray keeps packages of code, under the
        address `gcs://<name>`."""
        path = f"/api/packages/gcs/{quote(name)}"
        try:
            answer = self._session.upload(path, content, "application/octet-stream")
        except NoAnswer as error:
            raise RayApiError(f"does not answer{error.details}") from error
        if not answer.ok:
            raise RayApiError(f"keeps nothing for the job ({answer.status_code} {answer.reason})")

    def _ask(self, method: str, path: str) -> Any:
        return self._read(self._send(method, path))

    def _send(self, method: str, path: str) -> requests.Response:
        try:
            return self._session.ask(method, path)
        except NoAnswer as error:
            raise RayApiError(f"does not answer{error.details}") from error

    def _read(self, answer: requests.Response) -> Any:
        proxy = through_proxy(answer.url)
        if answer.status_code in (401, 403):
            raise RayApiError(f"refuses the login{proxy} ({answer.status_code} {answer.reason})")
        said = one_line(" ".join(answer.text.split()), _LENGTH)
        if answer.status_code != requests.codes.ok:
            raise RayApiError(f"answers {answer.status_code} {answer.reason}{proxy}: {said}")
        try:
            content = json.loads(answer.content)
        except ValueError:
            content = None
        if not isinstance(content, dict | list):
            raise RayApiError(f"does not answer as Ray does{proxy}: {said!r}")
        return content
