"""Find out on one host what a study needs of it: plain data out, nothing is decided here."""

import hashlib
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from orchestrator.config.mlflow_settings import trouble_at
from orchestrator.objects.address import trouble_of_objects
from orchestrator.rest.mlflow_api import MlflowApi, TrackingError

ELSEWHERE = "is not the same folder as elsewhere"
_MOST_FILES = 200_000  # whose names and sizes stand for a folder
_REACH_SECONDS = 3.0


class Wanted(TypedDict):
    """Says what is looked at. home: of the cluster; sign: name of a folder in it; shared: whether
    the command has made that, in its own home, else the driver makes it; paths: files and folders
    of the data sets; everywhere: whether every host reads them, or the driver's alone, which
    decodes them for all; mlflow: address; store: address, and then each host has a home of its
    own."""

    home: str
    sign: str
    shared: bool
    paths: list[str]
    everywhere: bool
    mlflow: str
    store: NotRequired[str]


class Finding(TypedDict):
    """Describes one host. home, store, mlflow, error: what is wrong; empty where nothing is."""

    host: str
    gpus: float
    home: NotRequired[str]
    store: NotRequired[str]
    mlflow: NotRequired[str]
    error: NotRequired[str]
    free_bytes: NotRequired[int]
    data: NotRequired[dict[str, str]]  # path → fingerprint, empty where there is nothing
    python: NotRequired[str]
    torch: NotRequired[str]  # version; empty where it is not installed
    clock: NotRequired[float]  # seconds that it is ahead of the driver's host
    unreached: NotRequired[list[str]]  # hosts


def look(wanted: Wanted, sign: str) -> Finding:
    """Look at this host, and leave a sign with that name in the home for the driver's host."""
    home, store = Path(wanted["home"]), wanted.get("store", "")
    trouble = trouble_of_disk(home) if store else trouble_of_home(home, wanted["sign"], sign)
    return Finding(
        host=platform.node(),
        gpus=0.0,
        home=trouble,
        store=trouble_of_objects(store) if store else "",
        free_bytes=shutil.disk_usage(home).free if home.is_dir() else 0,
        data={path: fingerprint(Path(path)) for path in wanted["paths"]},
        mlflow=trouble_of_mlflow(wanted["mlflow"]),
        python=platform.python_version(),
        torch=installed("torch"),
    )


def trouble_of_home(home: Path, folder: str, sign: str) -> str:
    """Return why a host cannot use the home; empty where it can. folder: of the signs, which
    another host has made; sign: is left in it."""
    if not home.is_dir():
        return "is not there"
    if not (home / folder).is_dir():
        return ELSEWHERE
    try:
        (home / folder / sign).write_text(sign, encoding="utf-8")
        (home / folder / sign).read_text(encoding="utf-8")
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    return ""


def trouble_of_disk(home: Path) -> str:
    """Return why a host cannot have a home of its own; empty where it can. It is made."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            return ""
    except OSError as error:
        return f"cannot be written ({error.strerror})"


def fingerprint(path: Path) -> str:
    """Return 12 hexadecimal digits over the names and sizes of the files in a folder, or of one
    file; empty where there is nothing."""
    if not path.exists():
        return ""
    found = []
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder) / name
            found.append(f"{file.relative_to(path)} {file.stat().st_size if file.exists() else 0}")
        if len(found) > _MOST_FILES:
            break
    text = "\0".join(found) if path.is_dir() else f"{path.stat().st_size}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def trouble_of_mlflow(uri: str) -> str:
    """Return why this host cannot use MLflow; empty where it can read there."""
    if trouble := trouble_at(f"{uri}/health", {}):
        return trouble
    try:
        MlflowApi(uri).get("experiments/search", max_results=1)
    except TrackingError as error:
        return str(error)
    return ""


def installed(package: str) -> str:
    """Return the version of a package; empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def listen() -> tuple[socket.socket, int]:
    """Listen on a free port of every address, as torch.distributed does. Returns the port too."""
    server = socket.create_server(("", 0))
    return server, int(server.getsockname()[1])


def unreached(others: Sequence[tuple[str, str, int]]) -> list[str]:
    """Return the hosts that this one does not reach. others: host, address and port of each."""
    found = []
    for host, address, port in others:
        try:
            socket.create_connection((address, port), timeout=_REACH_SECONDS).close()
        except OSError:
            found.append(host)
    return found
