"""What is said of an MLflow that refuses a login, does not answer, or is none; what is written into
a real one comes back."""

import math

import pytest

from orchestrator.rest.mlflow_api import MlflowApi, TrackingError
from orchestrator.tracking.mlflow_writer import Tracker
from tests.orchestrator.rest.servers import Answers, web_server


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b"You are not authenticated."),
        (403, b"Permission denied"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
    ],
)
def test_a_refused_login_is_a_refusal_and_says_what_to_do(status: int, body: bytes) -> None:
    with (
        web_server(Answers(status, body)) as uri,
        pytest.raises(TrackingError, match="the login is refused .*credentials") as error,
    ):
        Tracker(uri).reader.submissions("x")
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


@pytest.mark.parametrize(
    ("status", "body", "message", "answered"),
    [
        (
            200,
            b"<!doctype html>\n<p>x",
            "does not answer as MLflow does: .*'<!doctype html>",
            False,
        ),
        (200, b"[]", "does not answer as MLflow does", False),
        (404, b"<p>Not here", "does not know /api/2.0/mlflow/runs/get: .* an old version", False),
        (502, b"<p>Bad", "^502 Bad Gateway for /api/2.0/mlflow/runs/get: <p>Bad$", False),
        (
            500,
            b'{"error_code": "INTERNAL_ERROR", "message": "a\\nb"}',
            "^INTERNAL_ERROR: a b$",
            True,
        ),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "x"}', "_VALUE: x$", True),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "x"}', "_EXIST: x$", True),
        (400, b"no", "^400 Bad Request for", True),
    ],
)
def test_every_error_is_one_line(status: int, body: bytes, message: str, answered: bool) -> None:
    with (
        web_server(Answers(status, body)) as uri,
        pytest.raises(TrackingError, match=message) as error,
    ):
        MlflowApi(uri).get("runs/get", run_id="r")
    assert error.value.answered is answered and "\n" not in str(error.value)


def test_a_proxy_that_answers_in_place_of_the_server_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with web_server(Answers(502, b"cannot reach it")) as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        with pytest.raises(TrackingError, match=f"^502 Bad Gateway through the proxy {proxy} for "):
            MlflowApi("http://mlflow.invalid:5000").get("runs/get", run_id="r")


NOW = 1_700_000_000_000  # ms, long ago


@pytest.mark.parametrize(
    ("known", "stamped"),
    [
        ({2: 1000}, [1000, 1000, NOW, NOW]),  # the first epoch was copied from another trial
        ({1: 1000, 4: 900}, [1000, 1000, 1000, 1000]),  # the first was sent late
        ({1: 1000, 2: 2000, 3: 3000, 4: 4000}, [1000, 2000, 3000, 4000]),
    ],
)
def test_no_epoch_is_later_than_the_one_after_it(
    mlflow_uri: str, known: dict[int, int], stamped: list[int]
) -> None:
    tracker, stamps = Tracker(mlflow_uri), dict(known)
    run_id = tracker.writer.create_run(tracker.writer.experiment("x"), "x", {"kind": ""})
    epochs = [{"epoch": epoch, "a": 0.5} for epoch in (1, 2, 3, 4)]
    tracker.writer.log_epochs(run_id, epochs, stamps)
    points = tracker.connection.api.client.get_metric_history(run_id, "a")
    assert [point.step for point in points] == [1, 2, 3, 4]
    assert [min(point.timestamp, NOW) for point in points] == stamped
    sent = dict(stamps)
    tracker.writer.log_epochs(run_id, epochs, stamps)
    assert stamps == sent


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), float("-inf"), 0.0])
def test_every_number_comes_back(mlflow_uri: str, value: float) -> None:
    tracker = Tracker(mlflow_uri)
    run_id = tracker.writer.create_run(tracker.writer.experiment("x"), "x", {"kind": ""})
    tracker.writer.log_epochs(run_id, [{"epoch": 0, "a": value}, {"epoch": 1, "a": value}], {})
    client = tracker.connection.api.client  # which reads infinity as the largest number
    points = [(point.step, point.value) for point in client.get_metric_history(run_id, "a")]
    assert repr(tracker.reader.history(run_id, "a")) == repr(points) and len(points) == 2
    theirs = dict(client.get_run(run_id).data.metrics)
    assert repr(tracker.reader.run(run_id).metrics) == repr(theirs)
    assert math.isinf(value) or repr(theirs) == repr({"a": value})
    assert tracker.reader.run(run_id).tags == {"kind": ""}


def test_more_than_a_page_of_runs_and_more_than_a_call_of_tags(
    mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tracking.mlflow_client.PAGE", 2)
    tracker = Tracker(mlflow_uri)
    experiment = tracker.writer.experiment("x")
    parent = tracker.writer.create_run(experiment, "x", {})
    made = {tracker.writer.create_run(experiment, str(n), {}, parent) for n in range(5)}
    found = tracker.reader.children(tracker.reader.run(parent))
    assert {run.run_id for run in found} == made and len(found) == 5
    tags = {f"tag{n}": "x" * 6000 for n in range(150)}
    tracker.writer.set_tags(parent, tags)
    assert tracker.reader.run(parent).tags == {name: "x" * 5000 for name in tags}
