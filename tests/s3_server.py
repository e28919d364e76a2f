"""An S3 server for tests: moto's, whose conditional puts are right while no two come at once. So
requests are answered one after the other.

python -m tests.s3_server 127.0.0.1 9000    serves until it is ended; prints its address
"""

import logging
import os
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

BUCKET = "bucket"


class _OneByOne:
    """A web application that answers one request after the other, and none while it is `away`."""

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app, self._lock = app, threading.Lock()
        self.away = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if self.away:
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        with self._lock:
            return list(self._app(environ, start))


def login(url: str) -> dict[str, str]:
    """Return the environment of those who use a server at an address."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


class S3Server:
    """A running server. away: while it is true the server answers 503."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = _OneByOne(DomainDispatcherApplication(create_backend_app))
        self._server = make_server(host, port, self._app, threaded=True)
        self.url = f"http://{host}:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of those who use it."""
        return login(self.url)

    def be_away(self, away: bool) -> None:
        """Answer nothing but 503, or come back."""
        self._app.away = away

    def make_bucket(self) -> None:
        asked = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(asked, timeout=30).close()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with a bucket; the environment names it in the block."""
    server = S3Server()
    before = {name: os.environ.get(name) for name in server.environment}
    os.environ |= server.environment
    try:
        server.make_bucket()
        yield server
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
        server.stop()


if __name__ == "__main__":
    running = S3Server(sys.argv[1], int(sys.argv[2]))
    running.make_bucket()
    print(running.url, flush=True)
    threading.Event().wait()
