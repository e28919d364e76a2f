"""Read from MLflow: explicit run ids, short time-outs, no global state, no waiting inside.

A study is an experiment; a submission is a run in it; its Runs are that run's children. Any call
may raise TrackingError; the caller decides when to try again.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run as MlflowRun
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException

from orchestrator.config.errors import UserError
from orchestrator.config.mlflow_settings import bypass_proxies, innermost, through_proxy
from orchestrator.planning.plan import UnknownPlan
from orchestrator.tracking.tags import PARENT_RUN, PREFIX, Kind, Tag, from_mlflow, owner_of

OPEN = ("SCHEDULED", "RUNNING")  # the statuses of a run that has not ended
PAGE = 1000  # entries in one call
_FEW = 20  # submissions in one call: the one that is looked for is mostly the first
# one short try: with MLflow's own retries a dead server blocks a call for four minutes
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to our JSON
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_LOGIN = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED")  # 401 and 403
_HOW_TO_LOG_IN = "put user and password into ~/.mlflow/credentials"
_REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "BAD_REQUEST")


class TrackingError(UserError):
    """MLflow did not answer, or refused (then `answered`); one line."""

    def __init__(self, message: str, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run of ours. status: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""

    run_id: str
    status: str
    tags: Mapping[str, str]  # ours, without `orchestrator.`, under the names of `Tag`
    metrics: Mapping[str, float]  # the last value of each
    experiment_id: str


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """Turn what MLflow's client raises within it into TrackingError."""
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        code = error.error_code if isinstance(error, MlflowException) else ""
        failed = (e for e in _causes(error) if isinstance(e, requests.RequestException))
        unanswered = next((e for e in failed if e.request is not None), None)
        message = " ".join(str(error).split())[:300]
        if unanswered is not None and unanswered.request is not None:
            where = through_proxy(str(unanswered.request.url))
            message = f"no answer{where}: {innermost(unanswered)}"
        elif code in _LOGIN:
            message = f"the login is refused ({message}): {_HOW_TO_LOG_IN}"
        raise TrackingError(message, code in (*_REFUSALS, *_LOGIN)) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class MlflowConnection:
    """A connection to one MLflow server, shared by what reads and what writes."""

    def __init__(self, uri: str) -> None:
        os.environ.update(_ENVIRONMENT)
        bypass_proxies()
        os.environ.pop("MLFLOW_RUN_ID", None)  # set by a parent process for a run that is not ours
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)


class MlflowReader:
    """Reads runs, metrics and artifacts."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._client, self._uri = connection.client, connection.uri

    # --- runs ----------------------------------------------------------------------------------

    def run(self, run_id: str) -> TrackedRun:
        """Return one run. Raises TrackingError where there is none."""
        with mlflow_errors():
            return _tracked(self._client.get_run(run_id))

    def newest_submissions(self, home: str) -> dict[str, dict[str, TrackedRun]]:
        """Return study → home that it belongs to → that home's newest submission of the study, the
        newest study first, in two calls. home: as in `owner_of`."""
        with mlflow_errors():
            experiments = self._client.search_experiments(order_by=["creation_time DESC"])
        studies = {item.experiment_id: item.name for item in experiments}
        query = _has_kind(Kind.SUBMISSION)
        submissions = self._search(list(studies), query, "attributes.start_time ASC")
        newest: dict[str, dict[str, TrackedRun]] = {}
        for run in submissions:
            by_home = newest.setdefault(run.experiment_id, {})
            owner = owner_of(run.tags, home)
            by_home.pop(owner, None)  # so that the newest submission of all comes last
            by_home[owner] = run
        return {name: newest[number] for number, name in studies.items() if number in newest}

    def newest_submission(self, study: str, home: str) -> TrackedRun | None:
        """Return the newest submission of a study that belongs to a home."""
        for run in self._submissions(study, _has_kind(Kind.SUBMISSION)):
            if owner_of(run.tags, home) == home:
                return run
        return None

    def submission_of(self, study: str, job: str) -> TrackedRun | None:
        """Return the submission that a job works on; None before its driver has opened one, and
        after another job has taken it over."""
        query = f"{_has_kind(Kind.SUBMISSION)} and tags.`{PREFIX}{Tag.JOB}` = '{job}'"
        return next(self._submissions(study, query), None)

    def failed_opening(self, study: str, home: str) -> TrackedRun | None:
        """Return the newest job of a home's study whose driver failed before it had a plan; None
        where the home has a newer submission. A job's id begins with the study and its time."""
        query = f"{_has_kind(Kind.OPENING)} and attributes.status = 'FAILED'"
        runs = self._submissions(study, query)
        failed = next((run for run in runs if owner_of(run.tags, home) == home), None)
        newest = self.newest_submission(study, home)
        if failed is None or newest is None:
            return failed
        return failed if failed.tags[Tag.JOB] > newest.tags.get(Tag.JOB, "") else None

    def submissions(self, study: str, kind: Kind = Kind.SUBMISSION) -> list[TrackedRun]:
        """Return all submissions of a study, of any home, newest first. kind: OPENING before they
        have a plan."""
        return list(self._submissions(study, _has_kind(kind)))

    def _submissions(self, study: str, query: str) -> Iterator[TrackedRun]:
        with mlflow_errors():
            experiment = self._client.get_experiment_by_name(study)
        if experiment is not None:
            newest_first = "attributes.start_time DESC"
            yield from self._pages([experiment.experiment_id], query, _FEW, newest_first)

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        """Return the Runs and searches of a submission, or the trials of a search."""
        return self._search([parent.experiment_id], _has_parent(parent))

    def tree(self, submission: TrackedRun) -> list[TrackedRun]:
        """Return a submission's Runs, searches and their trials, and at last itself."""
        children = self.children(submission)
        searches = [child for child in children if child.tags.get(Tag.KIND) == Kind.SEARCH]
        trials = [trial for search in searches for trial in self.children(search)]
        return [*trials, *children, submission]

    def has_deleted(self, submission: TrackedRun) -> bool:
        """Tell whether one of a submission's Runs was deleted in MLflow."""
        query = _has_parent(submission)
        with mlflow_errors():
            deleted = self._client.search_runs(
                [submission.experiment_id], query, ViewType.DELETED_ONLY, 1
            )
        return bool(deleted)

    def _search(self, experiments: list[str], query: str, *order: str) -> list[TrackedRun]:
        return list(self._pages(experiments, query, PAGE, *order))

    def _pages(
        self, experiments: list[str], query: str, size: int, *order: str
    ) -> Iterator[TrackedRun]:
        """Yield runs; the next page is asked for when it is needed. size: runs of a page."""
        token = None
        while True:
            with mlflow_errors():
                page = self._client.search_runs(
                    experiments, query, max_results=size, order_by=list(order), page_token=token
                )
            yield from map(_tracked, page)
            token = page.token
            if not token:
                return

    # --- metrics -------------------------------------------------------------------------------

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return (epoch, value), one an epoch, ascending."""
        with mlflow_errors():
            points = self._client.get_metric_history(run_id, metric)
        return sorted({int(point.step): float(point.value) for point in points}.items())

    def last_epoch(self, run_id: str, metric: str) -> int:
        """Return the last epoch of a metric that MLflow has; 0 when it has none."""
        return max((epoch for epoch, _ in self.history(run_id, metric)), default=0)

    # --- artifacts -----------------------------------------------------------------------------

    def plan(self, submission: TrackedRun) -> dict[str, Any]:
        """Return the plan.json that the submission stored. Raises UnknownPlan where it is
        damaged."""
        try:
            plan = json.loads(self.text(submission.run_id, "plan.json"))
        except ValueError:  # said below
            plan = None
        if not isinstance(plan, dict):
            raise UnknownPlan(
                f"plan.json of submission {submission.run_id} of study "
                f"{submission.tags.get(Tag.STUDY)} is damaged: submit the study again"
            )
        return plan

    def text(self, run_id: str, file: str) -> str:
        """Return a text artifact of a run. Raises TrackingError where it is not there."""
        with tempfile.TemporaryDirectory() as folder:
            return self.download_file(run_id, file, Path(folder)).read_text(encoding="utf-8")

    def files(self, run_id: str, folder: str) -> list[str]:
        """Return paths of a run's artifacts in a folder; none where there is no such folder."""
        with mlflow_errors():
            return [item.path for item in self._client.list_artifacts(run_id, folder)]

    def download(self, run_id: str, path: str, into: Path) -> Path:
        """Download a folder of artifacts of a run; an empty one where there is none."""
        with mlflow_errors():
            if not self.files(run_id, path):
                return into
            return Path(self._client.download_artifacts(run_id, path, str(into)))

    def download_file(self, run_id: str, path: str, into: Path) -> Path:
        """Download one artifact of a run. Raises TrackingError where it is not there."""
        with mlflow_errors():
            return Path(self._client.download_artifacts(run_id, path, str(into)))

    def download_model(self, uri: str, into: Path) -> Path:
        """Download a logged model's own files, without MLflow's description of it."""
        with mlflow_errors():
            model = self._client.get_logged_model(uri.removeprefix("models:/"))
            address = model.artifact_location
            path = Path(download_artifacts(address, dst_path=str(into), tracking_uri=self._uri))
        inner = [item for item in path.glob("data/*") if item.is_dir()]
        return inner[0] if inner else path


def _has_kind(kind: Kind) -> str:
    return f"tags.`{PREFIX}{Tag.KIND}` = '{kind}'"


def _has_parent(parent: TrackedRun) -> str:
    return f"tags.`{PARENT_RUN}` = '{parent.run_id}'"


def _tracked(run: MlflowRun) -> TrackedRun:
    return TrackedRun(
        run.info.run_id,
        run.info.status,
        from_mlflow(run.data.tags),
        dict(run.data.metrics),
        run.info.experiment_id,
    )
