"""Read the login for an MLflow server from where MLflow's own client reads it: the environment,
else ~/.mlflow/credentials."""

import base64
import configparser
import os
from pathlib import Path

from requests.auth import AuthBase

from orchestrator.config.errors import UserError, one_line
from orchestrator.rest.session import Login

_TRUE, _FALSE = ("true", "1"), ("false", "0")


class LoginError(UserError):
    """The settings of a login cannot be used; one line."""


def mlflow_login() -> Login:
    """Return the login: user and password, else a token. Raises LoginError."""
    headers = {}
    user, password = _user_and_password()
    if user and password:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        headers["Authorization"] = f"Basic {pair}"
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    if workspace := os.environ.get("MLFLOW_WORKSPACE", "").strip():
        headers["X-MLFLOW-WORKSPACE"] = workspace
    trusted = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
    any_certificate = _is_set("MLFLOW_TRACKING_INSECURE_TLS")
    if trusted is not None and any_certificate:
        raise LoginError(
            "MLFLOW_TRACKING_INSECURE_TLS and MLFLOW_TRACKING_SERVER_CERT_PATH are both set: "
            "unset one of them"
        )
    verify = not any_certificate if trusted is None else trusted
    own = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
    return Login(headers, verify, own, _signer())


def _user_and_password() -> tuple[str | None, str | None]:
    names = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    user, password = (os.environ.get(name) for name in names)
    file = Path("~/.mlflow/credentials").expanduser()
    if not (user and password) and file.exists():
        read = configparser.ConfigParser()
        try:
            read.read(file, encoding="utf-8")
            kept = [read.get("mlflow", name.lower(), fallback=None) for name in names]
        except (configparser.Error, UnicodeDecodeError) as error:
            # a line of the file may be the password
            raise LoginError(f"{file} is damaged ({type(error).__name__})") from None
        user, password = user or kept[0], password or kept[1]
    return user, password


def _is_set(name: str) -> bool:
    value = os.environ.get(name, "false").lower()
    if value not in (*_TRUE, *_FALSE):
        raise LoginError(f"the environment variable {name} must be true or false")
    return value in _TRUE


def _signer() -> AuthBase | None:
    """Return what signs every request, where the environment names it. Those packages are loaded
    only then."""
    provider = os.environ.get("MLFLOW_TRACKING_AUTH")
    try:
        if _is_set("MLFLOW_TRACKING_AWS_SIGV4"):
            from requests_auth_aws_sigv4 import AWSSigV4

            return AWSSigV4("execute-api")  # type: ignore[no-any-return]
        if provider:
            from mlflow.tracking.request_auth.registry import fetch_auth

            return fetch_auth(provider)  # type: ignore[no-any-return]
    except ImportError as error:
        raise LoginError(f"MLFLOW_TRACKING_AWS_SIGV4 needs a package: {error}") from error
    except Exception as error:  # whatever a provider raises, which others have written
        raise LoginError(f"MLFLOW_TRACKING_AUTH: {one_line(str(error), 200)}") from error
    return None
