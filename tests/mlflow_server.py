"""MLflow's own server in a thread of the tests, with an empty database of its own each time: a
process of its own takes ten seconds to start."""

import functools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from werkzeug.serving import WSGIRequestHandler, make_server

_DATABASE = "mlflow.db"


class _Quiet(WSGIRequestHandler):
    """Answers without a line for every request."""

    def log_request(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Serve runs and artifacts that lie in a folder, which may hold those of an earlier server.
    Yields the address. There is one such server at a time in a process, since MLflow keeps which
    store it serves in variables of its modules."""
    import mlflow.server
    from mlflow.server import handlers

    database = folder / _DATABASE
    if not database.exists():
        shutil.copyfile(Path(_empty_database().name, _DATABASE), database)
    settings = {
        mlflow.server.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{database}",
        mlflow.server.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        mlflow.server.ARTIFACTS_DESTINATION_ENV_VAR: str(folder / "artifacts"),
        mlflow.server.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    with (
        patch.dict("os.environ", settings),
        patch.multiple(
            handlers, _tracking_store=None, _model_registry_store=None, _artifact_repo=None
        ),
    ):
        server = make_server("127.0.0.1", 0, mlflow.server.app, True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


@functools.cache
def _empty_database() -> "tempfile.TemporaryDirectory[str]":
    """Make a database once in a process, since its tables take a second. Returns its folder, which
    is removed when the process ends."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tempfile.TemporaryDirectory(prefix="mlflow-")
    store = SqlAlchemyStore(f"sqlite:///{Path(folder.name, _DATABASE)}", "mlflow-artifacts:/")
    store.engine.dispose()
    return folder
