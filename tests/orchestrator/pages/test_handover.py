"""A token goes to this user's browser, once, and to nobody else."""

import http.client
import os
import threading
from pathlib import Path

import pytest

from orchestrator.pages import handover
from orchestrator.pages.handover import Handover, can_hand_over

TARGET = "http://127.0.0.1:8265/#/jobs/a"


def ask(address: str, path: str = "/", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"))
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def answers(shown: Handover, *asked: tuple[str, dict[str, str]]) -> list[http.client.HTTPResponse]:
    """Ask a page that waits in another thread; the answers."""
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(shown.wait(20)))
    thread.start()
    got = [ask(shown.address, path, **headers) for path, headers in asked]
    thread.join()
    assert done == [True]
    return got


def test_the_browser_gets_the_cookie_and_goes_on_to_the_dashboard() -> None:
    with Handover("s3cret", TARGET) as shown:
        assert "s3cret" not in shown.address
        (answer,) = answers(shown, ("/", {}))
        assert (answer.status, answer.headers["Location"]) == (303, TARGET)
        cookie = answer.headers["Set-Cookie"]
        assert cookie == "ray-authentication-token=s3cret; Path=/; HttpOnly; SameSite=Strict"
    with pytest.raises(ConnectionRefusedError):
        ask(shown.address)


def test_other_names_and_paths_get_nothing() -> None:
    with Handover("s3cret", TARGET) as shown:
        evil, favicon, good = answers(
            shown, ("/", {"Host": "evil.example"}), ("/favicon.ico", {}), ("/", {})
        )
        for refused in (evil, favicon):
            assert refused.status == 403
            assert "s3cret" not in str(refused.headers) + refused.read().decode()
        assert good.status == 303


def test_another_user_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getuid()
    monkeypatch.setattr(handover.os, "getuid", lambda: own + 1)  # the connection's owner is own
    with Handover("s3cret", TARGET) as shown:
        thread = threading.Thread(target=shown.wait, args=(2,))
        thread.start()
        answer = ask(shown.address)
        thread.join()
    assert answer.status == 403
    assert answer.headers["Set-Cookie"] is None


def test_it_ends_without_a_browser_and_needs_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Handover("s3cret", TARGET) as shown:
        assert not shown.wait(1)
    with pytest.raises(ValueError, match="not on 127.0.0.1"):
        Handover("s3cret", "http://cluster.example:8265")
    monkeypatch.setattr(handover, "_CONNECTIONS", tmp_path / "none")
    assert not can_hand_over(TARGET)  # where no system tells whose a connection is
