"""List, download and upload artifacts of MLflow runs.

Most servers hand artifacts out themselves (addresses `mlflow-artifacts:/...`). Where a run's lie
elsewhere, such as in a bucket that each client reaches by itself, MLflow's own client does it.
"""

import mimetypes
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import requests

from orchestrator.rest.mlflow_api import MlflowApi, TrackingError, asking, client_errors

_HANDED_OUT = "mlflow-artifacts:/"
_ENDPOINT = "/api/2.0/mlflow-artifacts/artifacts"


class Artifacts:
    """The artifacts of one server's runs. Every call may raise TrackingError."""

    def __init__(self, api: MlflowApi) -> None:
        self._api = api
        self._roots: dict[str, str] = {}  # run → address of its artifacts

    def knows(self, run_id: str, address: str) -> None:
        """Remember where a run's artifacts lie, as the run itself says."""
        self._roots[run_id] = address

    def files(self, run_id: str, folder: str) -> list[str]:
        """Return the paths of what lies in a folder of a run's artifacts, sorted; none where there
        is no such folder."""
        root = self._root(run_id)
        if root is None:
            with client_errors():
                return [item.path for item in self._api.client.list_artifacts(run_id, folder)]
        return [path for path, _ in self._list(root, folder)]

    def download_folder(self, run_id: str, folder: str, into: Path) -> None:
        """Download all that lies below a folder to `into` and its own path; nothing where there is
        no such folder."""
        root = self._root(run_id)
        if root is None:
            if self.files(run_id, folder):
                with client_errors():
                    self._api.client.download_artifacts(run_id, folder, str(into))
            return
        for path, is_folder in self._list(root, folder):
            if is_folder:
                self.download_folder(run_id, path, into)
            else:
                self._save(root, path, into)

    def download_file(self, run_id: str, path: str, into: Path) -> Path:
        """Download a file to `into` and its own path, which is returned."""
        root = self._root(run_id)
        if root is None:
            with client_errors():
                return Path(self._api.client.download_artifacts(run_id, path, str(into)))
        return self._save(root, path, into)

    def content(self, run_id: str, path: str, into: Path) -> bytes:
        """Return the content of a file. into: a folder for what must be written on the way."""
        root = self._root(run_id)
        if root is None:
            return self.download_file(run_id, path, into).read_bytes()
        return self._ask(root, path, stream=False).content

    def upload(self, run_id: str, folder: Path, into: str | None = None) -> None:
        """Upload every file below a folder under its own name, `into` before it."""
        root = self._root(run_id)
        if root is None:
            with client_errors():
                self._api.client.log_artifacts(run_id, str(folder), into)
            return
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            inner = PurePosixPath(into or "") / file.relative_to(folder).as_posix()
            self._upload_file(root, str(inner), file)

    def upload_text(self, run_id: str, text: str, path: str) -> None:
        """Upload a text as a file."""
        root = self._root(run_id)
        if root is None:
            with client_errors():
                self._api.client.log_text(run_id, text, path)
            return
        kind = mimetypes.guess_type(path)[0] or "text/plain"
        with asking():
            answer = self._api.session.upload(_address(root, path), text.encode(), kind)
            self._api.checked(answer, _ENDPOINT)

    def _root(self, run_id: str) -> str | None:
        """Return the folder of a run's artifacts on the server; None where they lie elsewhere."""
        if run_id not in self._roots:
            answer = self._api.get("runs/get", run_id=run_id)
            self._roots[run_id] = str(answer["run"]["info"].get("artifact_uri", ""))
        address = self._roots[run_id]
        other_host = address.startswith(f"{_HANDED_OUT}/")
        if other_host or not address.startswith(_HANDED_OUT):
            return None
        return address.removeprefix(_HANDED_OUT).strip("/")

    def _list(self, root: str, folder: str) -> list[tuple[str, bool]]:
        """Return what lies in a folder, sorted: its path below the run's artifacts, and whether it
        is a folder. A file has nothing below it."""
        with asking():
            answer = self._api.session.ask("GET", _ENDPOINT, params={"path": f"{root}/{folder}"})
            content = self._api.checked(answer, _ENDPOINT).json()
        names = [(str(item["path"]), bool(item.get("is_dir"))) for item in content.get("files", [])]
        for name, _ in names:
            if not name or "/" in name or "\\" in name or name in (".", ".."):
                raise TrackingError(f"MLflow lists an artifact under a harmful name: {name!r}")
        if names == [(PurePosixPath(folder).name, False)]:
            # how some stores list what is a file itself; a folder whose only file has its name is
            # not told apart, as with MLflow's own client
            return []
        return sorted((f"{folder}/{name}", is_folder) for name, is_folder in names)

    def _save(self, root: str, path: str, into: Path) -> Path:
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        answer = self._ask(root, path, stream=True)
        with asking(), target.open("wb") as out:
            for part in self._api.session.parts(answer):
                out.write(part)
        return target

    def _ask(self, root: str, path: str, stream: bool) -> requests.Response:
        with asking():
            answer = self._api.session.ask("GET", _address(root, path), stream=stream)
            if answer.status_code == requests.codes.not_found:
                raise TrackingError(f"MLflow has no artifact {path}", answered=True)
            return self._api.checked(answer, _ENDPOINT)

    def _upload_file(self, root: str, path: str, file: Path) -> None:
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        with asking():
            answer = self._api.session.upload(_address(root, path), file, kind)
            self._api.checked(answer, _ENDPOINT)


def _address(root: str, path: str) -> str:
    return f"{_ENDPOINT}/{quote(root)}/{quote(path)}"
