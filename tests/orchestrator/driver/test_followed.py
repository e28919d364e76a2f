"""What a driver tells reaches those who follow it, each line once, also while MLflow is away."""

import logging
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.driver.followed import Look, News, Teller, Told
from orchestrator.rest.mlflow_api import TrackingError
from orchestrator.storage.run_log import TOLD
from orchestrator.tracking.mlflow_writer import Tracker
from tests.orchestrator.pages.studies import finished_study


@pytest.fixture
def driver(tmp_path: Path) -> logging.Logger:
    log = logging.Logger("driver")
    log.addHandler(Teller(tmp_path / "job.events"))
    return log


def without_clock(lines: list[str]) -> list[str]:
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    return [line[9:] for line in lines]


def test_warnings_and_what_is_marked_are_told_once(driver: logging.Logger, tmp_path: Path) -> None:
    told = Told(tmp_path / "job.events")
    assert told.new() == []  # nothing yet: no file
    driver.info("A seed 0: attempt 1 starts")
    driver.info("%s: waits for room on the cluster", "B seed 0", extra=TOLD)
    driver.warning("MLflow lacks results\nand more")
    assert without_clock(told.new()) == [
        "B seed 0: waits for room on the cluster", "MLflow lacks results\nand more"]  # fmt: skip
    assert told.new() == []
    driver.error("A seed 0: its checkpoint is damaged")
    assert without_clock(told.new()) == ["A seed 0: its checkpoint is damaged"]


def test_a_line_that_is_being_written_is_told_when_it_is_whole(tmp_path: Path) -> None:
    path, line = tmp_path / "job.events", b'{"time": 0, "text": "a node is lost"}\n'
    told = Told(path)
    path.write_bytes(b"damaged\n" + line[:10])
    assert told.new() == []
    path.write_bytes(b"damaged\n" + line)
    assert without_clock(told.new()) == ["a node is lost"]


def test_a_file_that_cannot_be_written_ends_no_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    log = logging.Logger("driver")
    log.addHandler(Teller(tmp_path / "gone" / "job.events"))
    log.warning("a node is lost")


def test_an_outage_of_mlflow_is_said_once_and_its_end_too(
    driver: logging.Logger, tmp_path: Path
) -> None:
    news = News(Told(tmp_path / "job.events"))
    for _ in range(3):
        news.mlflow_is_away(TrackingError("connection refused"))
    driver.warning("a node is lost")
    assert without_clock(news.read()) == [
        "a node is lost",
        "MLflow does not answer; the study goes on, what is shown is older",
    ]
    assert news.read() == []
    news.mlflow_answers()
    news.mlflow_answers()
    assert without_clock(news.read()) == ["MLflow answers again"]
    for number in range(9):
        driver.warning("event %d", number)
    news.read()
    assert without_clock(list(news.last)) == [f"event {number}" for number in (5, 6, 7, 8)]


class Way:
    """A way to a server on loopback, on which everything waits while it is closed."""

    def __init__(self, port: int) -> None:
        self._to, self.open = ("127.0.0.1", port), threading.Event()
        self.open.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:  # it was closed
                return
            far = socket.create_connection(self._to)
            for one, other in ((near, far), (far.dup(), near.dup())):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:  # where one of both has ended
            while data := one.recv(1 << 16):
                self.open.wait()
                other.sendall(data)

    def close(self) -> None:
        self.open.set()
        self._listening.close()


def test_an_mlflow_that_is_frozen_is_told_of_within_seconds(
    tmp_path: Path, mlflow_uri: str
) -> None:
    submission = finished_study(Tracker(mlflow_uri))
    way = Way(int(mlflow_uri.rpartition(":")[2]))
    news = News(Told(tmp_path / "job.events"))
    look = Look(Tracker(way.address), "digits", "digits-1", news)
    seen = look.last()
    assert seen is not None and seen.tracked.run_id == submission.run_id
    assert look.now() is not None and news.read() == []
    way.open.clear()
    began = time.monotonic()
    kept = look.submission
    while not (said := news.read()):
        assert look.now() is kept
        assert time.monotonic() - began < 15  # seconds, on a busy machine
    assert without_clock(said)[0].startswith("MLflow does not answer")
    way.open.set()
    while not (said := news.read()):
        look.now()
    assert without_clock(said) == ["MLflow answers again"]
    assert look.last() is not kept
    way.close()
