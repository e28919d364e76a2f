"""What a driver tells reaches those who follow it, each line once, also while MLflow is away."""

import logging
import re
from pathlib import Path

import pytest

from orchestrator.driver.followed import News, Teller, Told
from orchestrator.rest.mlflow_api import TrackingError
from orchestrator.storage.run_log import TOLD


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
