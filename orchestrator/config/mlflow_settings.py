"""mlflow.yaml: an existing MLflow server, or how the local one is started."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.yaml_loader import YamlError, read_mapping
from trainables.config import Config

FILE = "mlflow.yaml"


class MlflowSettings(Config):
    """Every key is explained in the repository's mlflow.yaml; these are the defaults."""

    tracking_uri: Annotated[str, Field(pattern=r"^https?://")] | None = None
    host: str = "127.0.0.1"
    port: Literal["auto"] | Annotated[int, Field(ge=1, le=65535)] = "auto"
    backend_store_uri: str | None = None
    artifacts_destination: str | None = None

    @field_validator("tracking_uri", mode="before")
    @classmethod
    def _is_no_secret(cls, value: Any) -> Any:
        """The address travels: into jobs, messages and tags. Not repeated here, whatever it is."""
        if isinstance(value, str) and "@" in value:
            raise ValueError(
                "must be an address without user and password (no '@'): "
                "put those into ~/.mlflow/credentials"
            )
        return value

    def below(self, folder: Path) -> "MlflowSettings":
        """With relative paths taken from `folder`: the server does not run where the file lies."""
        found: dict[str, str] = {}
        store, place = self.backend_store_uri or "", self.artifacts_destination
        head, slashes, path = store.partition(":///")
        if head.partition("+")[0] == "sqlite" and path and not path.startswith(("/", ":memory:")):
            found["backend_store_uri"] = f"{head}{slashes}{folder / path}"
        elif store and ":" not in store:
            found["backend_store_uri"] = str(folder / Path(store).expanduser())
        if place and ":" not in place:
            found["artifacts_destination"] = str(folder / Path(place).expanduser())
        return self.model_copy(update=found)


def read_settings(given: str | None) -> MlflowSettings:
    """`--mlflow FILE`, else mlflow.yaml of the working folder, else the defaults.

    Raises StudyError.
    """
    path = Path(given or FILE)
    if given is None and not path.is_file():
        return MlflowSettings()
    try:
        mapping = read_mapping(path)
    except YamlError as fault:
        raise StudyError(str(path), [str(fault)]) from fault
    errors = ErrorList()
    settings = errors.validate(MlflowSettings, mapping)
    if settings is None:
        raise StudyError(str(path), errors.lines)
    return settings.below(path.absolute().parent)
