"""Start the MLflow server of a home, and ask whether it answers."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote_plus

from orchestrator.config.mlflow_settings import (
    MlflowSettings,
    allowed_options,
    in_address,
    trouble_at,
)
from orchestrator.services.ports import free_ports, is_free
from orchestrator.services.processes import spawn
from orchestrator.services.record import ServiceError, Started, mark_of
from orchestrator.storage.home import Home

_MLFLOW_APP = Path(__file__).parents[1] / "pages" / "mlflow_app.py"
_OF_S3 = "MLFLOW_S3_"  # variables of the place where artifacts lie, not of the caller
_NAME = re.compile(r"\$\{(\w+)\}")
_TEAM = ("psycopg", "boto3")  # packages of the extra `team`
# scheme of an address → module that MLflow needs for it, and what pip calls its package
_OF_ARTIFACTS = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
}


def start(home: Home, settings: MlflowSettings, last_port: int | None) -> Started:
    """Start MLflow. last_port: of the server that died, on which a running study still calls it.
    Raises ServiceError, as `check`."""
    database = database_address(settings)
    port = settings.port
    if port == "auto":
        port = last_port if last_port and is_free(last_port) else free_ports(1)[0]
    command = [sys.executable, "-P", str(_MLFLOW_APP), "server", "--workers=1"]
    command += [f"--host={settings.host}", f"--port={port}", *allowed_options(settings)]
    # below its working folder, the home: in an address `%`, `?` and `#` have meanings of their own
    command += [f"--artifacts-destination={settings.artifacts_destination or 'artifacts'}"]
    extra = {
        # it may hold a password, and every user can read a command line
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that serve only LLM jobs
        "MLFLOW_DISABLE_TELEMETRY": "true",  # of the server, and of its page
        **{name: value for name, value in os.environ.items() if name.startswith(_OF_S3)},
    }
    log, mark = home.logs / "mlflow.log", mark_of(home, "mlflow")
    process = spawn(command, log, mark, extra, str(home.root))
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return process, {"uri": f"http://{in_address(reached)}:{port}", "port": port}


def check(settings: MlflowSettings) -> None:
    """Raise ServiceError where its database or its artifacts cannot be had: before anything
    starts."""
    database_address(settings)
    check_artifacts(settings)


def database_address(settings: MlflowSettings) -> str:
    """Return the address of the database, with the values of the environment variables that it
    names, as in `postgresql://${DB_USER}:${DB_PASSWORD}@db.lab/mlflow`. Raises ServiceError where
    one is not set, or where there is no driver for the database."""
    given = settings.backend_store_uri or "sqlite:///mlflow.db"
    names = _NAME.findall(given)
    if missing := [name for name in names if not os.environ.get(name)]:
        raise ServiceError(f"backend_store_uri names {missing[0]}, which is not set: export it")
    address = _NAME.sub(lambda found: quote_plus(os.environ[found[1]]), given)
    if "://" in given and not given.startswith("sqlite"):
        _check_driver(given, address)
    return address


def _check_driver(given: str, address: str) -> None:
    """Raise ServiceError where SQLAlchemy, through which MLflow reaches databases, cannot load the
    driver. given: the address without secrets."""
    import sqlalchemy  # half a second to load; most homes have the database that Python brings

    try:
        sqlalchemy.make_url(address).get_dialect().import_dbapi()
    except ImportError as error:
        name = str(error.name)
        raise ServiceError(
            f"the database of MLflow needs the package {name}: {_cure(name)}"
        ) from error
    except sqlalchemy.exc.ArgumentError as error:
        scheme = given.partition(":")[0]
        raise ServiceError(f"backend_store_uri: no database is called {scheme}") from error


def check_artifacts(settings: MlflowSettings) -> None:
    """Raise ServiceError where MLflow has no package for the place of its artifacts."""
    scheme = (settings.artifacts_destination or "").partition("://")[0]
    module, package = _OF_ARTIFACTS.get(scheme, ("", ""))
    if module and not _is_installed(module):
        raise ServiceError(f"artifacts at {scheme}:// need the package {package}: {_cure(package)}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package above it
        return False


def _cure(package: str) -> str:
    if package in _TEAM:
        return "pip install 'vision-orchestrator[team]'"
    return "install it where `up` and `submit` are typed"


def answers(uri: str) -> bool:
    """Return whether a server answers."""
    return not trouble_at(f"{uri.rstrip('/')}/health", {})
