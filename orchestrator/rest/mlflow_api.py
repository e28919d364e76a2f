"""Call MLflow's REST API (https://mlflow.org/docs/latest/api_reference/rest-api.html), and say in
one line what goes wrong.

MLflow's own client, which takes seconds to load, is there for what needs it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import requests

from orchestrator.config.errors import UserError, innermost, one_line
from orchestrator.config.mlflow_settings import through_proxy
from orchestrator.rest.mlflow_login import LoginError, mlflow_login
from orchestrator.rest.session import SECONDS, NoAnswer, Session

if TYPE_CHECKING:
    from mlflow import MlflowClient

API = "/api/2.0/mlflow/"
# one short try: with MLflow's own retries a dead server blocks a call for four minutes
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": f"{SECONDS:.0f}",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to our JSON
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
_LOGIN = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")  # 401 and 403
_HOW_TO_LOG_IN = "put user and password into ~/.mlflow/credentials"
INTERNAL = "INTERNAL_ERROR"  # 500: the server, its database or its file store has failed
_REFUSALS = (NOT_FOUND, "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST", INTERNAL)
# what a status means where the answer has no code of MLflow's
_CODES = {400: "BAD_REQUEST", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 500: INTERNAL}
_LENGTH = 300  # letters of a message
_VERSION_LENGTH = 30


class TrackingError(UserError):
    """MLflow did not answer, or refused (then `answered`); one line. code: MLflow's name of the
    error, empty where it gave none."""

    def __init__(self, message: str, answered: bool = False, code: str = "") -> None:
        super().__init__(message)
        self.answered, self.code = answered, code


class MlflowApi:
    """One MLflow server. Every call may raise TrackingError."""

    def __init__(self, uri: str) -> None:
        os.environ.update(_ENVIRONMENT)
        os.environ.pop("MLFLOW_RUN_ID", None)  # set by a parent process for a run that is not ours
        follow = os.environ.get("MLFLOW_ALLOW_HTTP_REDIRECTS", "true").lower() in ("true", "1")
        self.uri = uri
        self.session = Session(uri, mlflow_login, follow=follow)

    def get(self, endpoint: str, **params: Any) -> dict[str, Any]:
        """Return what an endpoint that changes nothing answers. endpoint: such as `runs/get`."""
        with asking():
            answer = self.session.ask("GET", API + endpoint, params=params)
            return self._json(answer, API + endpoint)

    def post(self, endpoint: str, **body: Any) -> dict[str, Any]:
        """Return what an endpoint answers to a JSON body."""
        with asking():
            again = not endpoint.endswith("/create")  # all others may be repeated
            answer = self.session.ask("POST", API + endpoint, body=body, again=again)
            return self._json(answer, API + endpoint)

    @cached_property
    def version(self) -> str:
        """Return MLflow's version, such as 3.17.2; empty where the server does not tell it."""
        with asking():
            answer = self.session.ask("GET", "/version")
        text = answer.text.strip()
        return text if answer.ok and text[:1].isdigit() and len(text) < _VERSION_LENGTH else ""

    def checked(self, answer: requests.Response, endpoint: str) -> requests.Response:
        """Return an answer of status 200. Raises TrackingError, which says what another one
        means."""
        if answer.status_code == requests.codes.ok:
            return answer
        content = _read_json(answer)
        proxy = through_proxy(answer.url)
        if content is not None and "error_code" in content:
            code = str(content["error_code"])
            message = f"{code}: {content.get('message', '')}"
        else:
            code = _CODES.get(answer.status_code, "")
            said = " ".join(answer.text.split())
            message = f"{answer.status_code} {answer.reason}{proxy} for {endpoint}: {said}"
            if answer.status_code == requests.codes.not_found:
                message = (
                    f"{self.uri} does not know {endpoint}{proxy}: it is another server than "
                    f"MLflow, or an old version ({said})"
                )
        message = one_line(" ".join(message.split()), _LENGTH)
        if code in _LOGIN:
            message = f"the login is refused ({message}): {_HOW_TO_LOG_IN}"
        raise TrackingError(message, code in (*_REFUSALS, *_LOGIN), code)

    def _json(self, answer: requests.Response, endpoint: str) -> dict[str, Any]:
        content = _read_json(self.checked(answer, endpoint))
        if content is None:
            said = one_line(" ".join(answer.text.split()), 100)
            raise TrackingError(
                f"{self.uri} does not answer as MLflow does{through_proxy(answer.url)}: {endpoint} "
                f"begins with {said!r}"
            )
        return content

    @cached_property
    def client(self) -> "MlflowClient":
        """Return MLflow's own client, for models, and for artifacts that the server does not hand
        out itself."""
        from mlflow import MlflowClient  # takes seconds

        return MlflowClient(tracking_uri=self.uri)


@contextmanager
def asking() -> Iterator[None]:
    """Turn what a session raises into TrackingError."""
    try:
        yield
    except NoAnswer as error:
        raise TrackingError(str(error)) from error
    except LoginError as error:
        raise TrackingError(str(error), answered=True) from error


@contextmanager
def client_errors() -> Iterator[None]:
    """Turn what MLflow's own client raises into TrackingError."""
    from mlflow.exceptions import MlflowException  # takes seconds, like the client within

    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        code = error.error_code if isinstance(error, MlflowException) else ""
        failed = (e for e in _causes(error) if isinstance(e, requests.RequestException))
        unanswered = next((e for e in failed if e.request is not None), None)
        message = one_line(" ".join(str(error).split()), _LENGTH)
        if unanswered is not None and unanswered.request is not None:
            where = through_proxy(str(unanswered.request.url))
            message = f"no answer{where}: {innermost(unanswered)}"
        elif code in _LOGIN:
            message = f"the login is refused ({message}): {_HOW_TO_LOG_IN}"
        raise TrackingError(message, code in (*_REFUSALS, *_LOGIN), code) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _read_json(answer: requests.Response) -> dict[str, Any] | None:
    """Return the mapping that an answer holds; None where it holds something else."""
    try:
        content = json.loads(answer.content or b"{}")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
