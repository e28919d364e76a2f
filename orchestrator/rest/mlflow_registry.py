"""Keep the best model of a stage in MLflow's registry, under an alias by which it is served:
`mlflow models serve -m models:/STUDY.STAGE@best`."""

from typing import Any

from orchestrator.pages.notes import serving_note
from orchestrator.rest.mlflow_api import MlflowApi, TrackingError

BEST = "best"  # the alias
_EXISTS = "RESOURCE_ALREADY_EXISTS"


class ModelRegistry:
    """The registered models of one server. Every call may raise TrackingError."""

    def __init__(self, api: MlflowApi) -> None:
        self._api = api

    def best(self, name: str) -> dict[str, Any] | None:
        """Return the version of a registered model that has the alias; None where none has."""
        try:
            endpoint = "registered-models/alias"
            return dict(self._api.get(endpoint, name=name, alias=BEST)["model_version"])
        except TrackingError as error:
            if error.answered:
                return None
            raise

    def set_best(self, name: str, model_id: str, run_id: str, about: str) -> None:
        """Register a logged model as the best one of a name, unless it is that already. about: what
        MLflow shows of this version."""
        before = self.best(name)
        if before is not None and f"/{model_id}/" in str(before.get("source")):
            return  # the answer names the model in its place alone
        self._create(name)
        model = self._api.get(f"logged-models/{model_id}")["model"]
        version = self._api.post(
            "model-versions/create",
            name=name,
            source=model["info"]["artifact_uri"],
            run_id=run_id,
            model_id=model_id,
            description=serving_note(self._api.uri, f"models:/{name}@{BEST}", about),
        )["model_version"]["version"]
        self._api.post("registered-models/alias", name=name, alias=BEST, version=version)

    def _create(self, name: str) -> None:
        try:
            self._api.post("registered-models/create", name=name)
        except TrackingError as error:
            if error.code != _EXISTS:
                raise
