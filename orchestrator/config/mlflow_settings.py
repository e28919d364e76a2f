"""Read mlflow.yaml: the address of an MLflow server, or how the local one is started."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.yaml_loader import YamlError, read_mapping
from trainables.config import Config

FILE = "mlflow.yaml"


class MlflowSettings(Config):
    """The keys of mlflow.yaml with their defaults."""

    tracking_uri: Annotated[str, Field(pattern=r"^https?://")] | None = Field(
        default=None, description="address of a running server; default: a local one is started"
    )
    host: str = Field(default="127.0.0.1", description="address that the local server listens on")
    port: Literal["auto"] | Annotated[int, Field(ge=1, le=65535)] = Field(
        default="auto", description="port of the local server; auto: a free one"
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


def read_settings(file: str | None) -> MlflowSettings:
    """Read `--mlflow FILE`, else mlflow.yaml of the working folder, else take the defaults.

    Raises StudyError.
    """
    path = Path(file or FILE)
    if file is None and not os.path.lexists(path):
        return MlflowSettings()
    try:
        mapping = read_mapping(path)
    except YamlError as error:
        raise StudyError(str(path), [str(error)]) from error
    errors = ErrorList()
    settings = errors.validate(MlflowSettings, mapping)
    if settings is None:
        raise StudyError(str(path), errors.lines)
    return settings.below(path.absolute().parent)
