"""mlflow.yaml: every key has a default, and what is wrong is one line."""

from pathlib import Path

import pytest

from orchestrator.config.errors import StudyError
from orchestrator.config.mlflow_settings import MlflowSettings, read_settings
from orchestrator.config.yaml_loader import read_mapping

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_without_a_file_the_defaults_hold() -> None:
    settings = read_settings(None)
    assert settings == MlflowSettings()
    assert (settings.tracking_uri, settings.host, settings.port) == (None, "127.0.0.1", "auto")


def test_the_repository_s_file_says_every_default() -> None:
    file = REPOSITORY / "mlflow.yaml"
    assert read_settings(str(file)) == MlflowSettings()
    assert set(read_mapping(file)) == set(MlflowSettings.model_fields)


def test_the_working_folder_s_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_text("port: 5000\n", encoding="utf-8")
    assert read_settings(None) == MlflowSettings(port=5000)


def test_the_file_that_is_named_wins(tmp_path: Path) -> None:
    (tmp_path / "mlflow.yaml").write_text("port: 5000\n", encoding="utf-8")
    (tmp_path / "other.yaml").write_text(
        "tracking_uri: https://mlflow.example.org\n", encoding="utf-8"
    )
    settings = read_settings("other.yaml")
    assert (settings.tracking_uri, settings.port) == ("https://mlflow.example.org", "auto")


@pytest.mark.parametrize(
    ("key", "given", "found"),
    [
        ("artifacts_destination", "kept/artifacts", "{folder}/kept/artifacts"),
        ("artifacts_destination", "/kept", "/kept"),
        ("artifacts_destination", "~/kept", "{home}/kept"),
        ("artifacts_destination", "s3://bucket/path", "s3://bucket/path"),
        ("backend_store_uri", "sqlite:///kept.db", "sqlite:///{folder}/kept.db"),
        ("backend_store_uri", "sqlite+pysqlite:///kept.db", "sqlite+pysqlite:///{folder}/kept.db"),
        ("backend_store_uri", "sqlite:////kept.db", "sqlite:////kept.db"),
        ("backend_store_uri", "sqlite:///:memory:", "sqlite:///:memory:"),
        ("backend_store_uri", "mlruns", "{folder}/mlruns"),
        ("backend_store_uri", "postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_relative_paths_begin_where_the_file_lies(
    tmp_path: Path, key: str, given: str, found: str
) -> None:
    """The server itself runs in another folder."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "mlflow.yaml").write_text(f'{key}: "{given}"\n', encoding="utf-8")
    settings = read_settings("below/mlflow.yaml")
    wanted = found.format(folder=tmp_path / "below", home=Path.home())
    assert getattr(settings, key) == wanted


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("prot: 5000", "prot: unknown key (did you mean 'port'?)"),
        (
            "uri: x",
            "uri: unknown key (keys: tracking_uri, host, port, backend_store_uri, "
            "artifacts_destination)",
        ),
        ("host: 1", 'host: `1` is read as a number, and text is needed: write "1"'),
        ("port: 1\nport: 2", "line 2: key 'port' is written twice in the same mapping"),
        ("", "is empty: a mapping of keys is needed"),
        (
            "tracking_uri: sqlite:///mlflow.db",
            "tracking_uri: string should match pattern '^https?://', not 'sqlite:///mlflow.db'",
        ),
    ],
)
def test_a_wrong_file_says_what_is_wrong(text: str, line: str) -> None:
    Path("mlflow.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as error:
        read_settings(None)
    assert str(error.value) == f"mlflow.yaml: 1 error\n  {line}"


@pytest.mark.parametrize(
    "uri",
    [
        "https://me:hunter2@mlflow.example.org",
        "https://me:hunt/er2@mlflow.example.org",  # by the letter, the host is `me`
        "https://hunter2@mlflow.example.org:5000/prefix",
        "postgresql://me:hunter2@mlflow.example.org/mlflow",
        "me:hunter2@mlflow.example.org",
    ],
)
def test_a_password_in_the_address_is_refused_and_not_repeated(uri: str) -> None:
    Path("mlflow.yaml").write_text(f"tracking_uri: {uri}\n", encoding="utf-8")
    with pytest.raises(StudyError) as error:
        read_settings(None)
    assert str(error.value) == (
        "mlflow.yaml: 1 error\n  tracking_uri: must be an address without user and password "
        "(no '@'): put those into ~/.mlflow/credentials"
    )


@pytest.mark.parametrize("port", ["0", "65536", "-1", "5000.5", "'5000'", "true", "any"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    Path("mlflow.yaml").write_text(f"port: {port}", encoding="utf-8")
    with pytest.raises(StudyError) as error:
        read_settings(None)
    head, *lines = str(error.value).split("\n")
    assert head.startswith("mlflow.yaml: ")
    assert all(line.startswith("  port: input should be") for line in lines)


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(StudyError) as error:
        read_settings("none.yaml")
    line = "cannot be read: No such file or directory"
    assert str(error.value) == f"none.yaml: 1 error\n  {line}"
