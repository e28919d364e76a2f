"""Artifacts go to a real server and come back as they were; names that do harm are refused."""

import json
from pathlib import Path

import pytest

from orchestrator.rest.mlflow_api import MlflowApi, TrackingError
from orchestrator.rest.mlflow_artifacts import Artifacts
from tests.orchestrator.rest.servers import Answers, web_server

NAMES = ["a.txt", "deep/er/b.bin", "deep/c d.txt", "deep/50 %.txt", "deep/ä.txt", "empty"]


@pytest.fixture
def api(mlflow_uri: str) -> MlflowApi:
    return MlflowApi(mlflow_uri)


@pytest.fixture
def run_id(api: MlflowApi) -> str:
    experiment = api.post("experiments/create", name="x")["experiment_id"]
    return str(api.post("runs/create", experiment_id=experiment)["run"]["info"]["run_id"])


def test_a_folder_comes_back_as_it_was_sent(api: MlflowApi, run_id: str, tmp_path: Path) -> None:
    contents = {name: b"" if name == "empty" else name.encode() * 1000 for name in NAMES}
    for name, content in contents.items():
        path = tmp_path / "sent" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    artifacts = Artifacts(api)
    artifacts.upload(run_id, tmp_path / "sent", "into")
    artifacts.upload_text(run_id, "text ä\n", "into/deep/t.txt")
    assert artifacts.files(run_id, "into") == ["into/a.txt", "into/deep", "into/empty"]
    artifacts.download_folder(run_id, "into", tmp_path / "back")
    below = tmp_path / "back" / "into"
    back = {str(p.relative_to(below)): p.read_bytes() for p in below.rglob("*") if p.is_file()}
    assert back == contents | {"deep/t.txt": "text ä\n".encode()}
    one = artifacts.download_file(run_id, "into/deep/50 %.txt", tmp_path / "one")
    assert one.read_bytes() == contents["deep/50 %.txt"]
    assert artifacts.content(run_id, "into/a.txt", tmp_path) == contents["a.txt"]
    theirs = api.client.list_artifacts(run_id, "into/deep")
    assert artifacts.files(run_id, "into/deep") == [item.path for item in theirs]


def test_what_is_not_there_is_said(api: MlflowApi, run_id: str, tmp_path: Path) -> None:
    artifacts = Artifacts(api)
    assert artifacts.files(run_id, "nothing") == []
    artifacts.download_folder(run_id, "nothing", tmp_path)
    for ask in (artifacts.content, artifacts.download_file):
        with pytest.raises(TrackingError, match=r"nothing\.txt") as error:
            ask(run_id, "nothing.txt", tmp_path / "into")
        assert error.value.answered
    assert not list((tmp_path / "into").rglob("*.txt"))
    with pytest.raises(TrackingError, match="RESOURCE_DOES_NOT_EXIST"):
        artifacts.files("0" * 32, "x")


def test_artifacts_outside_of_the_server_are_read_by_its_own_client(
    api: MlflowApi, tmp_path: Path
) -> None:
    location = (tmp_path / "elsewhere").as_uri()
    experiment = api.client.create_experiment("outside", artifact_location=location)
    run_id = str(api.post("runs/create", experiment_id=experiment)["run"]["info"]["run_id"])
    artifacts = Artifacts(api)
    artifacts.upload_text(run_id, "here", "deep/t.txt")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "u.txt").write_text("too", "utf-8")
    artifacts.upload(run_id, tmp_path / "more", "deep")
    assert (tmp_path / "elsewhere" / run_id / "artifacts" / "deep" / "t.txt").read_text() == "here"
    assert artifacts.files(run_id, "deep") == ["deep/t.txt", "deep/u.txt"]
    assert artifacts.content(run_id, "deep/t.txt", tmp_path) == b"here"
    artifacts.download_folder(run_id, "deep", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "u.txt").read_text("utf-8") == "too"
    with pytest.raises(TrackingError):
        artifacts.content(run_id, "nothing.txt", tmp_path)


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "a\\b", ""])
def test_a_harmful_name_writes_nothing(tmp_path: Path, name: str) -> None:
    listed = {"files": [{"path": name, "is_dir": False}]}
    with web_server(Answers(body=json.dumps(listed).encode())) as uri:
        artifacts = Artifacts(MlflowApi(uri))
        artifacts.knows("r", "mlflow-artifacts:/1/r/artifacts")
        with pytest.raises(TrackingError, match="harmful name"):
            artifacts.download_folder("r", "logs", tmp_path / "into")
    assert list(tmp_path.iterdir()) == []
