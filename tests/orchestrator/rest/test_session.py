"""One connection serves many requests; what a server that is silent or cuts an answer is called."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.rest import session as module
from orchestrator.rest.session import Login, NoAnswer, Session
from tests.orchestrator.rest.servers import Answers, web_server


def test_a_connection_stays_open() -> None:
    answers = Answers()
    with web_server(answers) as uri:
        session = Session(f"{uri}/", Login)
        for _ in range(5):
            assert session.ask("POST", "/x", body={"a": 1}).status_code == 200
        session.upload("/y", b"content", "text/plain")
        session.upload("/y", Path(__file__), "text/plain")
    assert [path for _, path, _ in answers.asked] == ["/x"] * 5 + ["/y"] * 2
    assert answers.connections == 1


def test_a_connection_that_was_idle_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", -1.0)
    answers = Answers()
    with web_server(answers) as uri:
        session = Session(uri, Login)
        assert [session.ask("GET", "/x").status_code for _ in range(3)] == [200] * 3
    assert answers.connections == 3


def test_an_error_in_place_of_a_stream_gives_its_connection_back() -> None:
    answers = Answers(status=500, body=b"because")
    with web_server(answers) as uri:
        session = Session(uri, Login)
        for _ in range(2):
            assert session.ask("GET", "/x", stream=True).text == "because"
    assert answers.connections == 1


def whole_request(connection: socket.socket) -> bytes:
    """A request with its body, which may come in a part of its own."""
    with connection.makefile("rb") as stream:
        lines = list(iter(stream.readline, b"\r\n"))
        sizes = [line.split()[1] for line in lines if line.lower().startswith(b"content-length:")]
        return b"".join([*lines, b"\r\n", stream.read(int(sizes[0]) if sizes else 0)])


@pytest.fixture
def forgetful() -> Iterator[tuple[str, list[bytes]]]:
    """A server that closes its first connection without an answer."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for number in range(2):
                try:
                    connection, _ = server.accept()
                except OSError:  # the test has asked once, and has ended
                    return
                with connection:
                    asked.append(whole_request(connection))
                    if number:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


def test_a_request_whose_connection_was_closed_is_sent_once_more(
    forgetful: tuple[str, list[bytes]],
) -> None:
    address, asked = forgetful
    assert Session(address, Login).ask("POST", "/x", body={"a": 1}).status_code == 200
    assert len(asked) == 2 and asked[0] == asked[1]


def test_what_must_not_be_done_twice_is_not_sent_again(
    forgetful: tuple[str, list[bytes]],
) -> None:
    address, asked = forgetful
    with pytest.raises(NoAnswer, match="^no answer: ") as error:
        Session(address, Login).ask("POST", "/x", again=False)
    assert error.value.was_closed and len(asked) == 1


@pytest.fixture
def speaks() -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends given bytes and then nothing, and closes where they end with it."""
    said: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except OSError:  # the test has ended already
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(said[0])
                if not said[0]:
                    connection.recv(1)  # until the client gives up

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", said


def test_a_server_that_is_silent_is_not_waited_for(speaks: tuple[str, list[bytes]]) -> None:
    address, said = speaks
    said.append(b"")
    with pytest.raises(NoAnswer, match=r"^no answer: .*timed out"):
        Session(address, Login, seconds=0.3).ask("GET", "/x")


def test_a_download_that_breaks_off_is_no_answer(speaks: tuple[str, list[bytes]]) -> None:
    address, said = speaks
    said.append(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
    session = Session(address, Login)
    answer = session.ask("GET", "/x", stream=True)
    with pytest.raises(NoAnswer, match=r"^no answer: "):
        list(session.parts(answer))


def test_what_is_no_address_is_no_answer() -> None:
    with pytest.raises(NoAnswer, match=r"^no answer: "):
        Session("http://", Login).ask("GET", "/x")
