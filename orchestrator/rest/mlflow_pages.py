"""Write what MLflow's pages show beside runs: notes of submissions and studies, shared views."""

import logging
import time
from collections.abc import Mapping
from typing import Any

from orchestrator.pages.addresses import list_address
from orchestrator.pages.notes import LENGTH, experiment_note
from orchestrator.pages.view import TAG, knows_views, shared_views
from orchestrator.rest.mlflow_api import MlflowApi, TrackingError

log = logging.getLogger(__name__)
_NOTE = "mlflow.note.content"


class MlflowPages:
    """The tags of one server that its pages read. Every call may raise TrackingError."""

    def __init__(self, api: MlflowApi) -> None:
        self._api = api

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        """Set a tag of a run, given with its whole name."""
        self._api.post("runs/set-tag", run_id=run_id, key=key, value=value[:LENGTH])

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        """Set a tag of an experiment, given with its whole name."""
        endpoint = "experiments/set-experiment-tag"
        self._api.post(endpoint, experiment_id=experiment_id, key=key, value=value)

    def describe(self, run_id: str, markdown: str) -> None:
        """Set the text that MLflow shows with a run."""
        self.set_tag(run_id, _NOTE, markdown)

    def describe_study(self, experiment_id: str, run_id: str, title: str, markdown: str) -> None:
        """Put a submission's answer on top of the text that MLflow shows with its experiment."""
        answer = self._api.get("experiments/get", experiment_id=experiment_id)
        tags = {item["key"]: item["value"] for item in answer["experiment"].get("tags", ())}
        before = tags.get(_NOTE, "")
        note = experiment_note(before, run_id, title, markdown)
        if note != before:
            self.set_experiment_tag(experiment_id, _NOTE, note)

    def share_view(self, experiment_id: str, run_id: str, plan: Mapping[str, Any]) -> str:
        """Write the views of MLflow's page that open on the answer of a submission and on its
        pictures. Returns the first one's key; empty where the server's version does not know views,
        or refuses these."""
        try:
            if not knows_views(self._api.version):
                return ""
            for key, view in shared_views(plan, run_id, int(time.time() * 1000)).items():
                self.set_experiment_tag(experiment_id, f"{TAG}{key}", view)
        except TrackingError as error:
            if not error.answered:
                raise
            log.warning("the view that opens on the answer is not stored: %s", error)
            return ""
        return run_id

    def job_page(self, experiment_id: str, job: str) -> str:
        """Return the address of the page that lists what a job works on."""
        return list_address(self._api.uri, experiment_id, f"tags.`orchestrator.job` = '{job}'")
