"""A browser is opened logged in, also one whose command ends only when the browser does."""

import http.client
import queue
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from orchestrator.cli.services import _open_here
from orchestrator.services.record import RayService


def test_a_browser_that_holds_its_command_gets_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    got: queue.Queue[http.client.HTTPResponse] = queue.Queue()

    def browse(address: str) -> bool:
        """Return when the page is there, as a command in BROWSER may."""
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.request("GET", "/")
        got.put(connection.getresponse())
        return True

    monkeypatch.setattr(webbrowser, "open", browse)
    page = "http://127.0.0.1:8265/"
    assert _open_here(page, RayService("host:1", page.rstrip("/"), tmp_path / "token")) == 0
    answer = got.get(timeout=60)
    assert answer.headers["Location"] == page
    assert "s3cret" in answer.headers["Set-Cookie"]
    assert "s3cret" not in capsys.readouterr().out
