"""The home of a user: one folder with the store, caches, MLflow's database, logs and a record of
the services that run."""

import hashlib
import logging
import os
import platform
import stat
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypedDict

from orchestrator.config.errors import UserError, one_line
from orchestrator.storage.files import locked, read_json, write_json

log = logging.getLogger(__name__)
ENVIRONMENT = "ORCHESTRATOR_HOME"
LOCAL = "local"  # stands for the home's own cluster where another one has an address


class HomeError(UserError):
    """The home cannot be used; one line that says why and what to do."""

    status = 2


class _Named(TypedDict):
    """Describes what home.json holds."""

    name: str


@dataclass(frozen=True)
class Home:
    """Names where everything of one user lies. Naming a home touches no disk; `create` does."""

    root: Path

    @property
    def name(self) -> str:
        """Return the name that tells homes apart which share an MLflow server.

        It stays when the machine is renamed or the folder moved. A home that was never created, or
        that an older version has filled, has the machine's name and the folder's path. Raises
        HomeError where the file that holds it is damaged.
        """
        return self._known_name() or f"{platform.node()}:{self.root}"

    def _known_name(self) -> str | None:
        file = self.root / "home.json"
        known = read_json(file, _Named)
        if known is not None and known["name"]:
            return str(known["name"])
        if os.path.lexists(file):  # a new name would make its submissions those of another home
            raise HomeError(
                f"{file} is damaged: restore it from a copy. Without one delete it: the home gets "
                "a new name then, and what it has submitted counts as another home's"
            )
        return None

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def plans(self) -> Path:
        """Return the newest plan of each study, with which `plan` says why a Run is not done."""
        return self.root / "plans"

    @property
    def listings(self) -> Path:
        """Return what `status` has shown of finished studies of many Runs."""
        return self.root / "listings"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def events(self, job: str) -> Path:
        """Return the file of what a job's driver tells those who follow it."""
        return self.logs / f"{job}.events"

    @property
    def artifacts(self) -> Path:
        """Return where the home's own MLflow server keeps artifacts."""
        return self.root / "artifacts"

    @property
    def ray_train(self) -> Path:
        """Ray Train's own files, a folder an attempt. Nothing is read back from them."""
        return self.root / "ray_train"

    @property
    def planning(self) -> Path:
        """Lock: shared while a plan is made and stored, exclusive while `clean` removes."""
        return self.root / ".planning.lock"

    def driver_lock(self, study: str) -> Path:
        """Lock: held by the study's driver while it lives, then by the command that reconciles."""
        return self.root / f".driver_lock-{study}.lock"

    @property
    def ray_token(self) -> Path:
        return self.root / "ray_token"

    @property
    def services(self) -> Path:
        return self.root / "services.json"

    @property
    def services_lock(self) -> Path:
        """Lock: held while services are started or stopped."""
        return self.root / ".services.lock"

    @property
    def ray_temp(self) -> Path:
        """Return the folder of Ray's sockets. It is short: a socket's path holds 107 bytes at most.

        Ray makes it readable for all users; the folder around it is the user's alone.
        """
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:10]
        base = "/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir()
        return Path(base) / f"orch-{os.getuid()}-{digest}" / "r"

    def create(self) -> "Home":
        """Make the folders, and return the home. Raises HomeError when it cannot be written."""
        try:
            for folder in (self.root, self.store, self.cache, self.plans, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with locked(self.root / ".home.lock"):
                if self._known_name() is None:
                    unique = "" if any(self.store.iterdir()) else f":{uuid.uuid4().hex[:8]}"
                    name = f"{platform.node()}:{self.root}{unique}"
                    write_json(self.root / "home.json", {"name": name})
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise _unusable(self.root, error.strerror, "written") from error
        return self


def find_home(given: str | None) -> Home:
    """Return the home that `--home` names, else ORCHESTRATOR_HOME, else a folder of the user;
    absolute. Raises HomeError where no folder can be there."""
    chosen = given or os.environ.get(ENVIRONMENT)
    if not chosen:
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
        chosen = f"{base}/vision-orchestrator"
    root = os.path.realpath(os.path.expanduser(chosen))
    try:
        if not stat.S_ISDIR(os.stat(root).st_mode):
            raise _unusable(root, "not a folder")
    except FileNotFoundError:
        pass  # `create` makes it
    except OSError as error:
        raise _unusable(root, error.strerror) from error
    return Home(Path(root))


def _unusable(root: str | Path, why: str | None, verb: str = "used") -> HomeError:
    name = one_line(str(root), 300)
    return HomeError(
        f"home {name} cannot be {verb} ({why}): give another with --home or {ENVIRONMENT}"
    )
