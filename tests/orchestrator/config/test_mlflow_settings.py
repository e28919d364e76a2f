"""mlflow.yaml: every key has a default, and what is wrong is one line."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from orchestrator.config.errors import StudyError
from orchestrator.config.mlflow_settings import (
    MlflowSettings,
    allowed_options,
    bypass_proxies,
    check_address,
    read_settings,
    through_proxy,
    trouble_at,
)
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
            "uri: unknown key (keys: tracking_uri, host, port, allowed_hosts, backend_store_uri, "
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


class _Proxy(BaseHTTPRequestHandler):
    """A proxy that answers every request itself, and keeps the addresses."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(401 if "secret" in self.path else 200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a proxy that the environment names, for every request."""
    with HTTPServer(("127.0.0.1", 0), _Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://me:hidden@127.0.0.1:{server.server_port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "example.org")
        _Proxy.asked.clear()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_this_machine_is_never_asked_through_a_proxy(proxy: str) -> None:
    bypass_proxies()
    with HTTPServer(("127.0.0.1", 0), _Proxy) as server:  # as a service of ours
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("127.0.0.1", "localhost", socket.gethostname()):
            assert through_proxy(f"http://{name}:{server.server_port}/x") == ""
        assert trouble_at(f"http://127.0.0.1:{server.server_port}/own", {}) == ""
        server.shutdown()
    assert _Proxy.asked == ["/own"]
    assert os.environ["no_proxy"].startswith("example.org,")
    before = os.environ["no_proxy"]
    bypass_proxies()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == before


def test_what_lies_behind_a_proxy_is_asked_through_it_and_it_is_named(proxy: str) -> None:
    bypass_proxies()
    assert trouble_at("http://mlflow.invalid:5000/health", {}) == ""
    assert _Proxy.asked == ["http://mlflow.invalid:5000/health"]
    trouble = trouble_at("http://mlflow.invalid/secret", {})
    assert trouble == f"refuses the login through the proxy {proxy} (401 Unauthorized)"


def test_a_proxy_that_is_down_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hidden@127.0.0.1:1")
    trouble = trouble_at("http://mlflow.invalid/health", {})
    assert trouble.startswith("does not answer through the proxy 127.0.0.1:1: ")
    assert trouble.endswith("Connection refused") and "hidden" not in trouble


@pytest.mark.parametrize(
    ("host", "more", "named"),
    [
        ("127.0.0.1", [], ["localhost", "127.0.0.1:*", "[::1]", "[[]::1]:*"]),
        ("127.0.0.1", ["lab.example"], ["lab.example", "lab.example:*"]),
        ("0.0.0.0", [], [socket.gethostname(), f"{socket.gethostname()}:*", "localhost"]),
    ],
)
def test_the_server_answers_to_names_and_not_to_patterns_of_them(
    host: str, more: list[str], named: list[str]
) -> None:
    hosts, origins = allowed_options(MlflowSettings(host=host, allowed_hosts=more))
    names = hosts.removeprefix("--allowed-hosts=").split(",")
    assert set(named) <= set(names)
    assert all("*" not in name.removesuffix(":*") for name in names)
    assert f"http://{named[0]}" in origins.removeprefix("--cors-allowed-origins=").split(",")


def test_a_pattern_is_no_name_of_a_server() -> None:
    with pytest.raises(ValidationError):
        MlflowSettings(allowed_hosts=["*"])


@pytest.mark.parametrize(
    "address",
    ["http://", "http://[", "http://[::1", "http://x:y", "http://x:99999", "http://x:0",
     "http://:5", "http://a..b", f"http://{'a' * 70}", "http://a b", "http://a/\tb", "ftp://a",
     "a:1", "//a", ""],
)  # fmt: skip
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="^must be http://HOST:PORT or https://HOST:PORT"):
        check_address(address)
    Path("mlflow.yaml").write_text(json.dumps({"tracking_uri": address}), encoding="utf-8")
    with pytest.raises(StudyError, match="tracking_uri: "):
        read_settings(None)


@pytest.mark.parametrize(
    "address",
    [
        "http://x",
        "https://x.org/path/",
        "http://127.0.0.1:1",
        "http://[::1]:5000",
        "http://bücher.de",
    ],
)
def test_an_address_of_any_host_is_taken(address: str) -> None:
    check_address(address)
