"""What is said of a dashboard that refuses, is none, or does not know a job; which token it
gets."""

from pathlib import Path

import pytest

from orchestrator.rest.ray_api import RayApi, RayApiError, environment_login
from tests.orchestrator.rest.servers import Answers, web_server


def test_a_job_is_found_or_not() -> None:
    answers = Answers(body=b'{"status": "RUNNING", "message": null}')
    with web_server(answers) as uri:
        api = RayApi(uri, lambda: {"Authorization": "Bearer t"})
        assert api.job("a/b") == {"status": "RUNNING", "message": None}
        answers.status, answers.body = 404, b"Job a/b does not exist"
        assert api.job("a/b") is None
        with pytest.raises(RayApiError, match="answers 404 Not Found: Job a/b does not exist"):
            api.logs("a/b")
    assert answers.asked[0][1] == "/api/jobs/a/b"
    assert answers.asked[0][2]["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b"Unauthorized: Missing authentication token", r"^refuses the login \(401 "),
        (403, b"Forbidden", r"^refuses the login \(403 Forbidden\)$"),
        (500, b"a\nb", r"^answers 500 Internal Server Error: a b$"),
        (200, b"<!doctype html>\n<p>", r"^does not answer as Ray does: '<!doctype html> <p>'$"),
        (200, b"1", r"^does not answer as Ray does"),
    ],
)
def test_every_error_is_one_line(status: int, body: bytes, message: str) -> None:
    with web_server(Answers(status, body)) as uri, pytest.raises(RayApiError, match=message):
        RayApi(uri, dict).jobs()


def test_a_dashboard_that_is_not_there_does_not_answer() -> None:
    with pytest.raises(RayApiError, match="^does not answer: .*Connection refused"):
        RayApi("http://127.0.0.1:1", dict).version()


def test_the_token_of_the_environment_is_that_of_rays_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of home\n", "utf-8")
    (tmp_path / "other").write_text("of file\n", "utf-8")
    assert environment_login() == {}
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert environment_login() == {"Authorization": "Bearer of home"}
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert environment_login() == {"Authorization": "Bearer of file"}
    monkeypatch.setenv("RAY_AUTH_TOKEN", "itself")
    assert environment_login() == {"Authorization": "Bearer itself"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert environment_login() == {}
