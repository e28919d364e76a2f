"""clusters.yaml: what is wrong is a line with its dotted key, and no token stands in it."""

import os
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.clusters.settings import (
    choose_cluster,
    clusters_file,
    missing_settings,
    read_clusters,
    with_mlflow,
)
from orchestrator.config.errors import Refused, StudyError
from orchestrator.config.mlflow_settings import ClusterSettings, MlflowSettings

LAB = """
lab:
  ray: http://head:8265/
  token: {env: LAB_TOKEN}
  mlflow: http://tracking:5000
  home: /shared/home
  data: /shared/data
  resources: {workers: 4}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without clusters; nothing of the environment stays."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "LAB_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_a_cluster_is_read_and_its_token_is_where_ray_looks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "clusters.yaml").write_text(LAB)
    monkeypatch.setenv("LAB_TOKEN", " secret\n")
    lab = choose_cluster("lab", None)
    assert lab is not None
    assert (lab.ray, lab.home, lab.data) == ("http://head:8265", "/shared/home", "/shared/data")
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]) == ("token", "secret")
    assert with_mlflow(MlflowSettings(), lab).tracking_uri == "http://tracking:5000"
    assert with_mlflow(MlflowSettings(), None).tracking_uri is None
    assert missing_settings(lab, {}) == ["resources.workers=4"]
    assert missing_settings(lab, {"resources": {"workers": 2}}) == []
    assert missing_settings(None, {}) == []


@pytest.mark.parametrize(
    ("own", "given"),
    [
        ({}, '{"pip": ["timm"], "env": ["HF_TOKEN"]}'),
        (
            {"environment": {"env": {"A": "1"}}},
            '{"pip": ["timm"], "env": {"HF_TOKEN": "${HF_TOKEN}", "A": "1"}}',
        ),
    ],
)
def test_the_environment_of_a_cluster_holds_where_the_study_says_nothing(
    folder: Path, own: dict[str, object], given: str
) -> None:
    entry = "lab: {ray: 'http://h:1', environment: {pip: [timm], env: [HF_TOKEN]}}"
    (folder / "clusters.yaml").write_text(entry)
    lab = choose_cluster("lab", None)
    assert missing_settings(lab, own) == [f"environment={given}"]


def test_the_file_beside_the_settings_counts_before_that_of_the_user(folder: Path) -> None:
    own = folder.parent / "config" / "vision-orchestrator" / "clusters.yaml"
    assert clusters_file(None) == own
    assert read_clusters(own) == {}
    own.parent.mkdir(parents=True)
    own.write_text(LAB.replace("lab:", "mine:"))
    assert list(read_clusters(clusters_file(None))) == ["mine"]
    (folder / "clusters.yaml").write_text(LAB)
    assert list(read_clusters(clusters_file(None))) == ["lab"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lab: {}", "lab.ray: "),
        ("lab: {ray: head:8265}", "lab.ray: "),
        ("lab: {ray: 'http://user:pass@head:8265'}", "lab.ray: "),
        ("lab: {ray: 'http://head:0'}", "lab.ray: must be http://HOST:PORT"),
        ("lab: {ray: 'http://head:1', hoem: /x}", "lab.hoem: unknown key (did you mean 'home'?)"),
        ("lab: {ray: 'http://head:1', home: x}", "lab.home: "),
        ("lab: {ray: 'http://head:1', token: abc}", "lab.token: "),
        ("lab: {ray: 'http://head:1', token: {}}", "lab.token: needs one of `env:` and `file:`"),
        ("lab: {ray: 'http://head:1', resources: {cpus: 1}}", "lab.resources"),
        ("lab: 3", "lab: "),
    ],
)
def test_a_fault_is_a_line_with_its_key(folder: Path, text: str, line: str) -> None:
    (folder / "clusters.yaml").write_text(text)
    with pytest.raises(StudyError) as error:
        choose_cluster("lab", None)
    (found,) = error.value.errors
    assert found.startswith(line)
    assert "user:pass" not in found


@pytest.mark.parametrize(
    ("token", "line"),
    [
        ("{env: LAB_TOKEN}", "token.env: the environment variable LAB_TOKEN is not set"),
        ("{file: gone}", "token.file: gone cannot be read (No such file or directory)"),
        ("{file: empty}", "token.file: empty is empty"),
    ],
)
def test_a_token_that_is_not_there_is_said(folder: Path, token: str, line: str) -> None:
    (folder / "empty").touch()
    (folder / "clusters.yaml").write_text(LAB.replace("{env: LAB_TOKEN}", token))
    with pytest.raises(Refused, match=r"clusters.yaml: lab\.") as error:
        choose_cluster("lab", None)
    assert line in str(error.value) and error.value.status == 2


def test_a_name_that_is_not_there_is_said_by_every_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "clusters.yaml").write_text(LAB)
    for command in (["submit", "digits"], ["plan", "digits"], ["status"], ["compare", "digits"],
                    ["stop", "digits"], ["logs", "digits/a/0"], ["check"]):  # fmt: skip
        assert main([*command, "--cluster", "lap"]) == 2
        assert "--cluster lap: no such cluster in clusters.yaml (did you mean 'lab'?)" in (
            capsys.readouterr().err
        )


def test_two_clusters_are_one_too_many(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "clusters.yaml").write_text("lab: {ray: 'http://head:1'}")
    assert main(["submit", "digits", "--cluster", "lab", "--address", "http://head:2"]) == 2
    assert "give one of them" in capsys.readouterr().err
    assert main(["check"]) == 2
    assert "give --cluster NAME, --address URL, or module:Name" in capsys.readouterr().err


def test_a_plan_is_made_where_home_and_data_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "clusters.yaml").write_text("lab: {ray: 'http://head:1', home: /gone}")
    assert main(["plan", "digits", "--cluster", "lab"]) == 2
    assert "does not see the home of --cluster lab (/gone)" in capsys.readouterr().err


def test_an_address_is_one() -> None:
    assert ClusterSettings(ray="https://head/ray/").ray == "https://head/ray"
