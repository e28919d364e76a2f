"""Messages reach a real HTTP server and a real mail server, once each; no study waits for them."""

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from orchestrator.config.mlflow_settings import MailSettings, NotifySettings
from orchestrator.notify import deliver as delivery
from orchestrator.notify.note import FOLDER, read_note, waiting
from orchestrator.notify.notifier import Notifier, send_waiting

SECRET = "s3cret-path"


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it. answers: statuses, one a request; then 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Posted)
        self.got: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.address = f"http://127.0.0.1:{self.server_port}/{SECRET}"


class _Posted(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.got.append({"path": self.path, **json.loads(body)})
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_PAUSES", (0.0, 0.0))


def told(home: Path, settings: NotifySettings, monkeypatch: pytest.MonkeyPatch) -> Notifier:
    """A notifier that notes, and leaves sending to the test."""
    monkeypatch.setattr("orchestrator.notify.notifier.send_waiting", lambda home: None)
    return Notifier(home, "photos", settings)


def send_all(home: Path) -> bool:
    return all([delivery.deliver(path) for path in waiting(home)])


HOOK = NotifySettings(webhook=["HOOK"])


def test_a_process_of_its_own_posts_a_message_once(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", receiver.address)
    notifier = Notifier(tmp_path, "photos", HOOK)
    began = time.monotonic()
    notifier.tell("done", "job-1", "photos is done", "9 of 9 Runs finished")
    noted = time.monotonic() - began
    (path,) = waiting(tmp_path) or (tmp_path / FOLDER).glob("*.json")
    for _ in range(600):
        if not waiting(tmp_path):
            break
        time.sleep(0.1)
    (got,) = receiver.got
    assert got["path"] == f"/{SECRET}"
    assert (got["event"], got["study"], got["title"]) == ("done", "photos", "photos is done")
    assert got["text"] == got["content"] == "photos is done\n9 of 9 Runs finished"
    assert got["id"] == path.stem
    # a driver that was started again says the same: nothing is sent
    Notifier(tmp_path, "photos", HOOK).tell("done", "job-1", "photos is done")
    assert send_waiting(tmp_path) is None
    assert len(receiver.got) == 1
    assert noted < 5.0  # `tell` starts a process, and waits for none
    for process in notifier._sending:
        process.wait()


def test_what_a_dead_driver_has_noted_is_sent_by_the_next_command(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(tmp_path, HOOK, monkeypatch).tell("failed", "job-1", "photos has not finished")
    assert not receiver.got
    monkeypatch.setenv("HOOK", receiver.address)
    assert delivery.main(str(tmp_path)) == 0
    assert signal.alarm(0) == 0  # its deadline is over: it ends no process that goes on
    assert [got["event"] for got in receiver.got] == ["failed"]
    assert delivery.main(str(tmp_path)) == 0
    assert len(receiver.got) == 1


def test_no_file_and_no_line_holds_a_secret(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    receiver.answers = [404, 500]
    monkeypatch.setenv("HOOK", receiver.address)
    settings = NotifySettings(webhook=["HOOK", "NOT_SET", "NOWHERE", "NO_ADDRESS"])
    monkeypatch.setenv("NOWHERE", f"http://127.0.0.1:9/{SECRET}")
    monkeypatch.setenv("NO_ADDRESS", f"{SECRET}://x")
    told(tmp_path, settings, monkeypatch).tell("done", "job-1", "photos is done")
    with caplog.at_level(logging.WARNING):
        assert not send_all(tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4  # one a channel
    assert "webhook HOOK: 'photos is done' was not sent: answers 500" in lines[0]
    assert "the environment variable NOT_SET is not set" in lines[1]
    assert "does not answer (Connection refused)" in lines[2]
    stored = "".join(path.read_text("utf-8") for path in (tmp_path / FOLDER).iterdir())
    assert SECRET not in stored + "".join(lines)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / FOLDER).iterdir())


def test_a_receiver_that_is_away_gets_it_later_and_others_get_it_once(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", receiver.address)
    settings = NotifySettings(webhook=["HOOK", "LATER"])
    told(tmp_path, settings, monkeypatch).tell("done", "job-1", "photos is done")
    assert not send_all(tmp_path)
    assert len(receiver.got) == 1
    monkeypatch.setenv("LATER", f"{receiver.address}/later")
    assert send_all(tmp_path)
    assert [got["path"] for got in receiver.got] == [f"/{SECRET}", f"/{SECRET}/later"]


def test_a_message_that_cannot_be_sent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(tmp_path, HOOK, monkeypatch).tell("done", "job-1", "photos is done")
    tries = 0
    while waiting(tmp_path):
        assert not send_all(tmp_path)
        tries += 1
    assert tries == delivery.MOST_TRIES


def test_events_that_are_not_asked_for_are_not_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = NotifySettings(webhook=["HOOK"], on=["failed"])
    told(tmp_path, settings, monkeypatch).tell("done", "job-1", "photos is done")
    Notifier(tmp_path, "photos", None).tell("failed", "job-1", "photos has not finished")
    assert waiting(tmp_path) == []


class Mailbox:
    """Keeps what arrives."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.got.append(envelope)
        return "250 OK"


def _known(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    right = isinstance(login, LoginPassword) and login.password == SECRET.encode()
    return AuthResult(success=right, handled=False)


def mail(port: int, **login: str) -> NotifySettings:
    to = ["one@lab.example", "two@lab.example"]
    return NotifySettings(
        mail=MailSettings(host="127.0.0.1", port=port, sender="me@lab.example", to=to, **login)
    )


def test_mail_reaches_every_receiver_with_and_without_a_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Controller(mailbox, "127.0.0.1", port, authenticator=_known, auth_require_tls=False)
    server.start()
    try:
        title = "photos is done\nBcc: x@evil.example"
        told(tmp_path, mail(port), monkeypatch).tell("done", "1", title, "9 of 9 Runs")
        assert send_all(tmp_path)
        monkeypatch.setenv("MAIL_USER", "me")
        monkeypatch.setenv("MAIL_PASSWORD", "wrong")
        with_login = mail(port, user="MAIL_USER", password="MAIL_PASSWORD")
        told(tmp_path, with_login, monkeypatch).tell("failed", "1", "photos failed")
        assert not send_all(tmp_path)
        assert "the mail server answers 535" in caplog.text
        assert "wrong" not in caplog.text
        monkeypatch.setenv("MAIL_PASSWORD", SECRET)
        assert send_all(tmp_path)
    finally:
        server.stop()
    first, second = mailbox.got
    assert first.rcpt_tos == ["one@lab.example", "two@lab.example"]
    text = first.content.decode()
    assert "Subject: photos is done Bcc: x@evil.example" in text  # no header of its own
    assert "9 of 9 Runs" in text
    assert "Subject: photos failed" in second.content.decode()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Apprise's own
def test_apprise_sends_what_it_speaks(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("apprise")
    monkeypatch.setenv("APPRISE", receiver.address.replace("http://", "json://"))
    settings = NotifySettings(apprise=["APPRISE"])
    told(tmp_path, settings, monkeypatch).tell("stalled", "key", "A seed 0 is silent", "see logs")
    assert send_all(tmp_path)
    assert (receiver.got[0]["title"], receiver.got[0]["message"]) == (
        "A seed 0 is silent", "see logs")  # fmt: skip


def test_a_second_process_leaves_alone_what_the_first_is_sending(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", receiver.address)
    told(tmp_path, HOOK, monkeypatch).tell("done", "1", "photos is done")
    (path,) = waiting(tmp_path)
    with open(path.with_suffix(".lock"), "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert delivery.deliver(path)
        assert receiver.got == []
    assert delivery.deliver(path)
    assert len(receiver.got) == 1
    note = read_note(path)
    assert note is not None and not note.is_waiting


def test_a_home_that_cannot_be_written_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FOLDER).write_text("a file", "utf-8")
    notifier = Notifier(tmp_path, "photos", HOOK)
    notifier.remember()
    notifier.tell("done", "1", "photos is done")
    assert len([line for line in caplog.messages if "notify" in line]) == 2
    assert os.path.isfile(tmp_path / FOLDER)
