"""What is read from the output of a driver, and a cluster that is not ready for jobs yet."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import ray

from orchestrator.execution import ray_jobs
from orchestrator.execution.ray_jobs import Job, Jobs, errors_in
from orchestrator.services.record import RayService, ServiceError

_TRACEBACK = "Traceback (most recent call last):\n  File x\nModuleNotFoundError: No module y\n"


@pytest.mark.parametrize(
    ("output", "errors"),
    [
        ("", []),
        ("2026-01-01 A seed 0: finished\n", []),
        ("2026 x\nerror: too full\n2026 y\n", ["too full"]),
        ("error: s: 2 errors\n  a: b\n  c: d\n2026 x\n  e\n", ["s: 2 errors\n  a: b\n  c: d"]),
        (_TRACEBACK, ["ModuleNotFoundError: No module y"]),
        (f"{_TRACEBACK}2026-01-01 A seed 0: failed\n", []),  # of one Run
        (f"{_TRACEBACK}error: in words\n", ["in words"]),
    ],
)
def test_errors_are_found_among_other_lines(output: str, errors: list[str]) -> None:
    assert errors_in(output) == errors


Cluster = Callable[[int], RayService]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Makes a dashboard of Ray that refuses so many submissions, as that of 2.60 does while its
    agent is not up."""
    servers = []

    def make(refusals: int) -> RayService:
        left = [refusals]

        class Dashboard(BaseHTTPRequestHandler):
            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def do_GET(self) -> None:
                version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "c"}
                packed = self.path.startswith("/api/packages")  # uploaded already
                self.answer(200, "{}" if packed else json.dumps(version))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                left[0] -= 1
                if left[0] >= 0:
                    text = "No available agent to submit job, please try again later."
                    self.answer(500, text)
                else:
                    self.answer(200, json.dumps({"job_id": "j", "submission_id": "j"}))

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return RayService("127.0.0.1:1", f"http://127.0.0.1:{server.server_port}", None)

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


JOB = Job("j", {"study": "s"}, "p", None, "/h", "local", "http://mlflow", "t", None)


def test_a_job_is_sent_again_while_the_cluster_is_not_ready(cluster: Cluster) -> None:
    Jobs(cluster(2)).submit(JOB)


def test_a_cluster_that_never_gets_ready_is_named(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "_AGENT_SECONDS", 0.5)
    with pytest.raises(ServiceError, match="No available agent"):
        Jobs(cluster(1000)).submit(JOB)
