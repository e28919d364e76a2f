"""Read mlflow.yaml: the address of an MLflow server, or how the local one is started; and
orchestrator.yaml beside it: prices, and whom to tell of a study.

Beside it stands what is known of addresses: which are this machine's own, which of them the server
answers to, which proxy a request passes, and why an address does not answer.
"""

import os
import socket
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.config.errors import AnyConfig, ErrorList, StudyError, innermost, one_line
from orchestrator.config.yaml_loader import YamlError, read_mapping
from orchestrator.needs.environment import Environment, VariableName
from orchestrator.needs.resources import Resources
from trainables.config import Config, NonNegativeFloat

FILE, NEIGHBOUR = "mlflow.yaml", "orchestrator.yaml"
_PROBE_SECONDS = 3.0


def check_address(address: str) -> None:
    """Raise ValueError, which says why, where an address is not `http(s)://HOST[:PORT][/PATH]`."""
    form = "must be http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as every client does: no part of a name is empty or too long
    except ValueError as error:  # a UnicodeError too
        raise ValueError(f"{form} ({one_line(str(error), 200)})") from error
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(form)
    if any(letter.isspace() or not letter.isprintable() for letter in address):
        raise ValueError(f"{form}, without spaces")


class MlflowSettings(Config):
    """The keys of mlflow.yaml with their defaults."""

    tracking_uri: Annotated[str, Field(pattern=r"^https?://")] | None = Field(
        default=None, description="address of a running server; default: a local one is started"
    )
    host: str = Field(default="127.0.0.1", description="address that the local server listens on")
    port: Literal["auto"] | Annotated[int, Field(ge=1, le=65535)] = Field(
        default="auto", description="port of the local server; auto: a free one"
    )
    allowed_hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\[\]-]+$")]] = Field(
        default=[],
        description="more names by which browsers call the local server, such as that of a "
        "gateway; requests to other names than these and this machine's own are refused",
    )
    backend_store_uri: str | None = Field(
        default=None, description="where the local server keeps runs; default: in the home"
    )
    artifacts_destination: str | None = Field(
        default=None, description="where the local server keeps artifacts; default: in the home"
    )

    @field_validator("tracking_uri", mode="before")
    @classmethod
    def _is_no_secret(cls, value: Any) -> Any:
        """Refuse secrets: the address goes into jobs, messages and tags. Not repeated here."""
        if isinstance(value, str) and "@" in value:
            raise ValueError(
                "must be an address without user and password (no '@'): "
                "put those into ~/.mlflow/credentials"
            )
        return value

    @field_validator("tracking_uri")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            check_address(value)
        return value

    def below(self, folder: Path) -> "MlflowSettings":
        """Make relative paths start from `folder`: the server runs in another one."""
        absolute: dict[str, str] = {}
        store, artifacts = self.backend_store_uri or "", self.artifacts_destination
        head, slashes, path = store.partition(":///")
        if head.partition("+")[0] == "sqlite" and path and not path.startswith(("/", ":memory:")):
            absolute["backend_store_uri"] = f"{head}{slashes}{folder / path}"
        elif store and ":" not in store:
            absolute["backend_store_uri"] = str(folder / os.path.expanduser(store))
        if artifacts and ":" not in artifacts:
            absolute["artifacts_destination"] = str(folder / os.path.expanduser(artifacts))
        return self.model_copy(update=absolute)


class PriceSettings(Config):
    """The keys of `price:` in orchestrator.yaml: what a report needs for energy and cost."""

    currency: str = Field(default="", max_length=8, description="such as EUR; shown with the cost")
    gpu_hour: NonNegativeFloat | None = Field(
        default=None, description="money for an hour of one GPU"
    )
    cpu_hour: NonNegativeFloat | None = Field(
        default=None, description="money for an hour of one CPU thread"
    )
    kwh: NonNegativeFloat | None = Field(
        default=None, description="money for a kWh, where energy is paid beside the hours"
    )
    gpu_watts: NonNegativeFloat | None = Field(
        default=None, description="power that one GPU takes in use, for the energy"
    )
    cpu_watts: NonNegativeFloat | None = Field(
        default=None, description="power that one CPU thread takes in use, for the energy"
    )


Event = Literal["done", "failed", "stalled", "collapsed"]


class MailSettings(Config):
    """Says how mail is sent. user, password: names of environment variables, never the values."""

    host: str = Field(description="the mail server (SMTP)")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(default=25, description="its port")
    security: Literal["none", "starttls", "tls"] = Field(
        default="none", description="starttls: mostly port 587; tls: mostly port 465"
    )
    sender: str = Field(description="address that the mail comes from")
    to: Annotated[list[str], Field(min_length=1)] = Field(description="addresses that get it")
    user: VariableName | None = Field(
        default=None, description="environment variable that holds the user; default: no login"
    )
    password: VariableName | None = Field(
        default=None, description="environment variable that holds the password"
    )

    @model_validator(mode="after")
    def _is_whole(self) -> "MailSettings":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together: set both, or none")
        if any(sign in text for text in [self.sender, *self.to] for sign in "\r\n,"):
            raise ValueError("an address has no comma and no line end: `to` is a list")
        return self


class NotifySettings(Config):
    """Says whom to tell when a study is done, fails, stalls or collapses.

    Addresses hold secrets, so environment variables hold the addresses, and these keys name them.
    """

    on: list[Event] = Field(
        default=["done", "failed", "stalled", "collapsed"],
        description="done: all has finished; failed: a Run, or the study, ended otherwise; "
        "stalled: a Run reports nothing for long; collapsed: the features of a Run have collapsed",
    )
    webhook: list[VariableName] = Field(
        default=[],
        description="environment variables that hold an address to which JSON is posted (Slack, "
        "Mattermost, Discord, or your own)",
    )
    mail: MailSettings | None = Field(default=None, description="how mail is sent; default: none")
    apprise: list[VariableName] = Field(
        default=[],
        description="environment variables that hold an address of Apprise (needs `pip install "
        "apprise`)",
    )
    stalled_minutes: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="minutes without a report after which a Run counts as stalled"
    )


AbsolutePath = Annotated[str, Field(pattern=r"^/")]
StoreAddress = Annotated[str, Field(pattern=r"^(/|s3://[a-z0-9][a-z0-9.-]+[a-z0-9](/|$))")]


class OwnSettings(Config):
    """The keys of orchestrator.yaml with their defaults."""

    notify: NotifySettings | None = Field(
        default=None, description="whom to tell of every study; `notify:` of a study replaces it"
    )
    price: PriceSettings = Field(
        default=PriceSettings(), description="what hardware and energy cost, for reports"
    )
    store: StoreAddress | None = Field(
        default=None, description="s3://BUCKET/PREFIX that has a copy of every Run; default: none"
    )
    gauges: bool = Field(
        default=False,
        description="whether Prometheus may read how far studies are, at a port of Ray that asks "
        "for no token; holds from the next start of Ray on",
    )


class TokenSource(Config):
    """Says where the token of a cluster is. The token itself never stands in a file of settings."""

    env: VariableName | None = Field(default=None, description="variable that holds the token")
    file: str | None = Field(default=None, description="file that holds nothing but the token")

    @model_validator(mode="after")
    def _is_one(self) -> "TokenSource":
        if (self.env is None) == (self.file is None):
            raise ValueError("needs one of `env:` and `file:`")
        return self


class ClusterSettings(Config):
    """Describes one cluster in clusters.yaml, under its name."""

    ray: str = Field(description="address of the Ray dashboard, such as http://HEAD:8265")
    token: TokenSource | None = Field(None, description="of Ray; default: RAY_AUTH_TOKEN, if any")
    mlflow: str | None = Field(
        None, description="MLflow that all its hosts reach; default: that of mlflow.yaml"
    )
    home: AbsolutePath | None = Field(None, description="of all its hosts; default: --home")
    store: StoreAddress | None = Field(
        None, description="s3://BUCKET/PREFIX of Runs, for hosts that share no folder"
    )
    data: AbsolutePath | None = Field(None, description="folder of the data sets; default: --data")
    resources: Resources = Field(Resources(), description="for studies that do not set its keys")
    environment: Environment = Field(Environment(), description="for studies that set no such key")
    image: str | None = Field(None, description="container image of the hosts, for `manifest`")

    @field_validator("ray", "mlflow", mode="before")
    @classmethod
    def _is_an_address(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if "@" in value:  # not repeated here: it goes into jobs and messages
            raise ValueError("must be an address without user and password (no '@')")
        check_address(value)
        return value.rstrip("/")


def read_own_settings(file: str | None) -> OwnSettings:
    """Read orchestrator.yaml beside `--mlflow FILE`, else that of the working folder, else take the
    defaults. Raises StudyError."""
    path = Path(file or FILE).parent / NEIGHBOUR
    if not os.path.lexists(path):
        return OwnSettings()
    return _read(path, OwnSettings)


def read_settings(file: str | None) -> MlflowSettings:
    """Read `--mlflow FILE`, else mlflow.yaml of the working folder, else take the defaults.

    Raises StudyError.
    """
    path = Path(file or FILE)
    if file is None and not os.path.lexists(path):
        return MlflowSettings()
    return _read(path, MlflowSettings).below(path.absolute().parent)


def _read(path: Path, form: type[AnyConfig]) -> AnyConfig:
    """Read a file of settings. Raises StudyError."""
    try:
        mapping = read_mapping(path)
    except YamlError as error:
        raise StudyError(str(path), [str(error)]) from error
    errors = ErrorList()
    settings = errors.validate(form, mapping)
    if settings is None:
        raise StudyError(str(path), errors.lines)
    return settings


# --- this machine and proxies --------------------------------------------------------------------


def own_names() -> list[str]:
    """Return the names and the addresses of this machine."""
    import psutil  # a tenth of a second to load; most who read settings ask for no address

    families = (socket.AF_INET, socket.AF_INET6)
    addresses = [
        address.address.partition("%")[0]  # without the name of the interface
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in families
    ]
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *addresses]
    return list(dict.fromkeys(name for name in names if name))


def bypass_proxies() -> None:
    """Let the requests of this process, and of those that it starts, reach this machine without a
    proxy, whatever `http_proxy` says."""
    for name in ("no_proxy", "NO_PROXY"):
        given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        kept = [part.strip() for part in given.split(",") if part.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*kept, *own_names()]))


def through_proxy(url: str) -> str:
    """Return words that name the proxy through which an address is asked; empty where it is asked
    directly. They hold no password."""
    import requests  # a tenth of a second to load; most who read settings ask for no address

    proxies = requests.utils.get_environ_proxies(url)
    proxy = requests.utils.select_proxy(url, proxies)
    if not proxy:
        return ""
    return f" through the proxy {proxy.rpartition('@')[2] if '@' in proxy else proxy}"


def is_loopback(url: str) -> bool:
    """Return whether only this machine can reach the address."""
    return urllib.parse.urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def allowed_options(settings: MlflowSettings) -> list[str]:
    """Return the options that let the server answer by its own names alone: a page of another name
    that leads here must not read it. They are names and not patterns, which other names would fit;
    the port is free, so that a forwarded one works."""
    local = is_loopback(f"http://{in_address(settings.host)}")
    own = ["localhost", "127.0.0.1", "::1"] if local else [*own_names(), settings.host]
    names = list(dict.fromkeys(map(in_address, [*own, *settings.allowed_hosts])))
    with_port = [f"{name.replace('[', '[[]', 1)}:*" for name in names]  # `[` begins a pattern
    origins = [f"{kind}://{name}" for kind in ("http", "https") for name in [*names, *with_port]]
    return [
        f"--allowed-hosts={','.join([*names, *with_port])}",
        f"--cors-allowed-origins={','.join(origins)}",
    ]


def in_address(host: str) -> str:
    """Return a host as it stands in an address: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def trouble_at(url: str, headers: Mapping[str, str]) -> str:
    """Return why an address does not answer as it should, with the proxy that was asked; empty
    where all is well."""
    import requests  # as above

    try:
        answer = requests.get(url, headers=dict(headers), timeout=_PROBE_SECONDS)
    except (requests.RequestException, ValueError) as error:
        return f"does not answer{through_proxy(url)}: {innermost(error)}"
    if answer.status_code == 200:
        return ""
    if answer.status_code in (401, 403):
        return f"refuses the login{through_proxy(url)} ({answer.status_code} {answer.reason})"
    return f"answers {answer.status_code} {answer.reason}{through_proxy(url)}"
