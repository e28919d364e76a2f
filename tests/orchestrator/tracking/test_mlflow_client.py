"""What is said of an MLflow that refuses a login or does not answer. A real server answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from orchestrator.tracking.mlflow_client import TrackingError
from orchestrator.tracking.mlflow_writer import Tracker


class _Refusing(BaseHTTPRequestHandler):
    """Refuses every request, as a server with a login does."""

    status: ClassVar[int] = 401
    body: ClassVar[bytes] = b"You are not authenticated."

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b"You are not authenticated."),
        (403, b"Permission denied"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
    ],
)
def test_a_refused_login_is_a_refusal_and_says_what_to_do(
    refusing: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setattr(_Refusing, "status", status)
    monkeypatch.setattr(_Refusing, "body", body)
    with pytest.raises(TrackingError, match="the login is refused .*credentials") as error:
        Tracker(refusing).reader.submissions("x")
    assert error.value.answered


def test_a_server_that_does_not_answer_is_no_refusal() -> None:
    with pytest.raises(
        TrackingError, match=r"^no answer: \[Errno \d+\] Connection refused$"
    ) as error:
        Tracker("http://127.0.0.1:1").reader.submissions("x")
    assert not error.value.answered


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hidden@127.0.0.1:1")
    with pytest.raises(TrackingError, match=r"^no answer through the proxy 127.0.0.1:1: ") as error:
        Tracker("http://mlflow.invalid:5000").reader.submissions("x")
    assert "hidden" not in str(error.value) and not error.value.answered
