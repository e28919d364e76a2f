"""The login is the one that MLflow's own client sends, to a real server, over HTTP and HTTPS."""

import datetime
import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow import MlflowClient
from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

from orchestrator.rest.mlflow_api import MlflowApi, TrackingError
from tests.orchestrator.rest.servers import Answers, web_server

_FILE = "[mlflow]\nmlflow_tracking_username = filed\nmlflow_tracking_password = kept\n"
_NAMES = ("USERNAME", "PASSWORD", "TOKEN", "INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH")
_RUN = b'{"run": {"info": {"run_id": "r", "experiment_id": "1", "status": "FINISHED"}, "data": {}}}'


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No login of who runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in _NAMES:
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@pytest.mark.parametrize("file", ["", _FILE, "[other]\n"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"TRACKING_USERNAME": "me", "TRACKING_PASSWORD": "pass:wörd"},
        {"TRACKING_USERNAME": "me"},
        {"TRACKING_TOKEN": "secret"},
        {"TRACKING_USERNAME": "me", "TRACKING_PASSWORD": "p", "TRACKING_TOKEN": "secret"},
    ],
    ids=lambda settings: "+".join(settings) or "nothing",
)
def test_the_login_is_that_of_mlflows_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, str], file: str
) -> None:
    if file:
        (tmp_path / ".mlflow").mkdir()
        (tmp_path / ".mlflow" / "credentials").write_text(file, "utf-8")
    for name, value in settings.items():
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    answers = Answers(body=_RUN)
    with web_server(answers) as uri:
        MlflowApi(uri).get("runs/get", run_id="r")
        MlflowClient(tracking_uri=uri).get_run("r")
    (_, _, ours), (_, _, theirs) = answers.asked
    assert ours.get("Authorization") == theirs.get("Authorization")


def test_the_workspace_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_WORKSPACE", "team")
    answers = Answers(body=_RUN)
    with web_server(answers) as uri:
        MlflowApi(uri).get("runs/get", run_id="r")
    assert answers.asked[0][2][WORKSPACE_HEADER_NAME] == "team"


def test_a_damaged_credentials_file_is_named_without_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("hidden\n", "utf-8")
    with pytest.raises(TrackingError, match="credentials is damaged") as error:
        MlflowApi("http://localhost:1").get("runs/get", run_id="r")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"INSECURE_TLS": "maybe"}, "MLFLOW_TRACKING_INSECURE_TLS must be true or false"),
        ({"INSECURE_TLS": "true", "SERVER_CERT_PATH": "/x"}, "are both set"),
        ({"SERVER_CERT_PATH": "/no/such/file"}, "no answer.*/no/such/file"),
        ({"AWS_SIGV4": "true"}, "needs a package: .*requests_auth_aws_sigv4"),
    ],
)
def test_settings_that_cannot_be_used_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, str], message: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with pytest.raises(TrackingError, match=message) as error:
        MlflowApi("https://localhost:1").get("runs/get", run_id="r")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost that nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    path.write_bytes(
        key.private_bytes(encoding, form, serialization.NoEncryption())
        + signed.public_bytes(encoding)
    )
    return path


def tls_of(certificate: Path, wants_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if wants_certificate:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate)
    return context


def test_a_certificate_that_is_not_trusted_is_refused_unless_the_settings_say_so(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_server(Answers(body=_RUN), tls_of(certificate)) as uri:
        with pytest.raises(TrackingError, match="^no answer: .*certificate verify failed"):
            MlflowApi(uri).get("runs/get", run_id="r")
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert MlflowApi(uri).get("runs/get", run_id="r")["run"]["info"]["run_id"] == "r"
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        with pytest.warns(match="Unverified HTTPS request"):
            assert MlflowApi(uri).get("runs/get", run_id="r")


def test_the_own_certificate_is_shown_to_a_server_that_wants_one(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
    with web_server(Answers(body=_RUN), tls_of(certificate, wants_certificate=True)) as uri:
        with pytest.raises(TrackingError, match="^no answer"):
            MlflowApi(uri).get("runs/get", run_id="r")
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(certificate))
        assert MlflowApi(uri).get("runs/get", run_id="r")
