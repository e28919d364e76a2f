"""Read from MLflow: explicit run ids, short time-outs, no global state, no waiting inside.

A study is an experiment; a submission is a run in it; its Runs are that run's children. Any call
may raise TrackingError; the caller decides when to try again.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.pages.addresses import answer_address
from orchestrator.pages.pictures import picture_charts
from orchestrator.pages.view import pictures_key
from orchestrator.planning.plan import UnknownPlan
from orchestrator.rest.mlflow_api import NOT_FOUND, MlflowApi, client_errors
from orchestrator.rest.mlflow_api import TrackingError as TrackingError  # raised by every call
from orchestrator.rest.mlflow_artifacts import Artifacts
from orchestrator.tracking.tags import PARENT_RUN, PREFIX, Kind, Tag, from_mlflow, owner_of

OPEN = ("SCHEDULED", "RUNNING")  # the statuses of a run that has not ended
PAGE = 1000  # entries in one call
_ID_DIGITS = 32  # of an MLflow run's id
_FEW = 20  # submissions in one call: the one that is looked for is mostly the first


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run of ours. status: SCHEDULED, RUNNING, FINISHED, FAILED or KILLED."""

    run_id: str
    status: str
    tags: Mapping[str, str]  # ours, without `orchestrator.`, under the names of `Tag`
    metrics: Mapping[str, float]  # the last value of each
    experiment_id: str


def answer_page(uri: str, submission: TrackedRun) -> str:
    """Return the address of MLflow's page that opens on the answer of a submission."""
    view = submission.tags.get(Tag.VIEW, "")
    return answer_address(uri, submission.experiment_id, submission.run_id, view)


def pictures_page(uri: str, submission: TrackedRun, plan: Mapping[str, Any]) -> str:
    """Return the address of MLflow's page that opens on a submission's pictures over epochs; empty
    where there is no such view. plan: the submission's."""
    view = submission.tags.get(Tag.VIEW, "")
    if not view or not picture_charts(plan):
        return ""
    experiment, run_id = submission.experiment_id, submission.run_id
    return answer_address(uri, experiment, run_id, pictures_key(view))


class MlflowConnection:
    """A connection to one MLflow server, shared by what reads and what writes."""

    def __init__(self, uri: str) -> None:
        self.api = MlflowApi(uri)
        self.artifacts = Artifacts(self.api)

    def experiment(self, study: str) -> dict[str, Any] | None:
        """Return a study's experiment, also a deleted one; None where there is none."""
        try:
            answer = self.api.get("experiments/get-by-name", experiment_name=study)
        except TrackingError as error:
            if error.code == NOT_FOUND:
                return None
            raise
        return dict(answer["experiment"])


class MlflowReader:
    """Reads runs, metrics and artifacts."""

    def __init__(self, connection: MlflowConnection) -> None:
        self._connection, self._api = connection, connection.api
        self._artifacts = connection.artifacts

    # --- runs ----------------------------------------------------------------------------------

    def run(self, run_id: str) -> TrackedRun:
        """Return one run. Raises TrackingError where there is none."""
        return self._tracked(self._api.get("runs/get", run_id=run_id)["run"])

    def newest_submissions(self, home: str) -> dict[str, dict[str, TrackedRun]]:
        """Return study → home that it belongs to → that home's newest submission of the study, the
        newest study first, in two calls. home: as in `owner_of`."""
        newest_first = {"order_by": ["creation_time DESC"], "max_results": PAGE}
        experiments = self._entries("experiments/search", "experiments", newest_first)
        studies = {str(item["experiment_id"]): str(item["name"]) for item in experiments}
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

    def submission_of(
        self, study: str, job: str, kind: Kind = Kind.SUBMISSION
    ) -> TrackedRun | None:
        """Return the submission that a job works on; None before its driver has opened one, and
        after another job has taken it over. kind: OPENING for one whose plan is not stored yet."""
        query = f"{_has_kind(kind)} and tags.`{PREFIX}{Tag.JOB}` = '{job}'"
        return next(self._submissions(study, query), None)

    def failed_opening(self, study: str, home: str) -> TrackedRun | None:
        """Return the newest job of a home's study whose driver failed before it had a plan; None
        where the home has a newer submission. A job's id begins with the study and its time."""
        runs = self._submissions(study, _FAILED_OPENING)
        failed = next((run for run in runs if owner_of(run.tags, home) == home), None)
        newest = self.newest_submission(study, home) if failed else None
        return failed if failed and _is_newer(failed, newest) else None

    def failed_openings(
        self, home: str, newest: Mapping[str, Mapping[str, TrackedRun]]
    ) -> dict[str, TrackedRun]:
        """Return study → what `failed_opening` returns, of all studies in one call. newest: as
        `newest_submissions` returns it."""
        studies = {
            run.experiment_id: study for study, runs in newest.items() for run in runs.values()
        }
        failed = {}
        if studies:
            order = "attributes.start_time ASC"
            for run in self._search(list(studies), _FAILED_OPENING, order):
                study = studies[run.experiment_id]
                own = owner_of(run.tags, home) == home
                if own and _is_newer(run, newest[study].get(home)):
                    failed[study] = run
        return failed

    def submissions(self, study: str, kind: Kind = Kind.SUBMISSION) -> list[TrackedRun]:
        """Return all submissions of a study, of any home, newest first. kind: OPENING before they
        have a plan."""
        return list(self._submissions(study, _has_kind(kind)))

    def _submissions(self, study: str, query: str) -> Iterator[TrackedRun]:
        experiment = self._connection.experiment(study)
        if experiment is not None:
            newest_first = "attributes.start_time DESC"
            yield from self._pages([experiment["experiment_id"]], query, _FEW, newest_first)

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
        answer = self._api.post(
            "runs/search",
            experiment_ids=[submission.experiment_id],
            filter=_has_parent(submission),
            run_view_type="DELETED_ONLY",
            max_results=1,
        )
        return bool(answer.get("runs"))

    def _search(self, experiments: Sequence[str], query: str, *order: str) -> list[TrackedRun]:
        return list(self._pages(experiments, query, PAGE, *order))

    def _pages(
        self, experiments: Sequence[str], query: str, size: int, *order: str
    ) -> Iterator[TrackedRun]:
        """Yield runs; the next page is asked for when it is needed. size: runs of a page."""
        request = {"experiment_ids": list(experiments), "filter": query, "max_results": size}
        found = self._entries("runs/search", "runs", request | {"order_by": list(order)})
        return map(self._tracked, found)

    def _entries(
        self, endpoint: str, name: str, request: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yield the entries of an answer that comes in pages. name: of their list."""
        token: dict[str, str] = {}
        while True:
            answer = self._api.post(endpoint, **request, **token)
            yield from answer.get(name, ())
            if not answer.get("next_page_token"):
                return
            token = {"page_token": str(answer["next_page_token"])}

    def _tracked(self, run: Mapping[str, Any]) -> TrackedRun:
        """Return a run as MLflow's API describes it. It leaves out what is empty."""
        info, data = run["info"], run.get("data", {})
        run_id = str(info["run_id"])
        self._artifacts.knows(run_id, str(info.get("artifact_uri", "")))
        return TrackedRun(
            run_id,
            str(info["status"]),
            from_mlflow({item["key"]: item.get("value", "") for item in data.get("tags", ())}),
            # `NaN` and `Infinity` are texts
            {item["key"]: float(item.get("value", 0)) for item in data.get("metrics", ())},
            str(info["experiment_id"]),
        )

    # --- metrics -------------------------------------------------------------------------------

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Return (epoch, value), one an epoch, ascending."""
        answer = self._api.get("metrics/get-history", run_id=run_id, metric_key=metric)
        points = answer.get("metrics", ())
        return sorted({int(p.get("step", 0)): float(p.get("value", 0)) for p in points}.items())

    def stamps(self, run_id: str, metric: str) -> dict[int, int]:
        """Return the epochs of a metric that MLflow has → their times in ms."""
        answer = self._api.get("metrics/get-history", run_id=run_id, metric_key=metric)
        return {int(p.get("step", 0)): int(p["timestamp"]) for p in answer.get("metrics", ())}

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
            return self._artifacts.content(run_id, file, Path(folder)).decode()

    def files(self, run_id: str, folder: str) -> list[str]:
        """Return paths of a run's artifacts in a folder; none where there is no such folder."""
        return self._artifacts.files(run_id, folder)

    def download(self, run_id: str, path: str, into: Path) -> Path:
        """Download a folder of artifacts of a run; an empty one where there is none."""
        self._artifacts.download_folder(run_id, path, into)
        return into / path if (into / path).is_dir() else into

    def download_file(self, run_id: str, path: str, into: Path) -> Path:
        """Download one artifact of a run. Raises TrackingError where it is not there."""
        return self._artifacts.download_file(run_id, path, into)

    def download_model(self, uri: str, into: Path) -> Path:
        """Download a logged model's own files, without MLflow's description of it."""
        with client_errors():
            from mlflow.artifacts import download_artifacts  # takes seconds

            model = self._api.client.get_logged_model(uri.removeprefix("models:/"))
            address, server = model.artifact_location, self._api.uri
            path = Path(download_artifacts(address, dst_path=str(into), tracking_uri=server))
        inner = [item for item in path.glob("data/*") if item.is_dir()]
        return inner[0] if inner else path


def wall_seconds(reader: MlflowReader, submission: TrackedRun) -> float | None:
    """Return the time from a submission's first start to the end of its last Run that has
    ended; None where none has."""
    run = reader._api.get("runs/get", run_id=submission.run_id)["run"]
    query, order = _has_parent(submission), ["attributes.end_time DESC"]
    experiments = [submission.experiment_id]
    answer = reader._api.post(
        "runs/search", experiment_ids=experiments, filter=query, order_by=order, max_results=1
    )
    ends = [int(last["info"].get("end_time") or 0) for last in answer.get("runs", ())]
    seconds = (max(ends, default=0) - int(run["info"]["start_time"])) / 1000
    return seconds if seconds > 0 else None


def _has_kind(kind: Kind) -> str:
    return f"tags.`{PREFIX}{Tag.KIND}` = '{kind}'"


def _has_parent(parent: TrackedRun) -> str:
    return f"tags.`{PARENT_RUN}` = '{parent.run_id}'"


_FAILED_OPENING = f"{_has_kind(Kind.OPENING)} and attributes.status = 'FAILED'"


def _is_newer(opening: TrackedRun, submission: TrackedRun | None) -> bool:
    """Tell whether a job is newer than that of a submission. A job's id begins with the study and
    its time."""
    return submission is None or opening.tags[Tag.JOB] > submission.tags.get(Tag.JOB, "")


def text_if_there(reader: MlflowReader, run_id: str, file: str) -> str | None:
    """Return a text artifact of a run; None where it is not there or is no text. Raises
    TrackingError where the server does not answer."""
    try:
        return reader.text(run_id, file)
    except TrackingError as error:
        if error.answered:
            return None
        raise
    except UnicodeDecodeError:
        return None


def runs_named(reader: MlflowReader, name: str) -> list[TrackedRun]:
    """Return the Runs and trials of all submissions with this beginning of a key, or this id of an
    MLflow run; those that have finished come first, then the newest. name: hexadecimal digits."""
    experiments = reader._entries("experiments/search", "experiments", {"max_results": PAGE})
    query = f"tags.`{PREFIX}{Tag.RUN_KEY}` LIKE '{name}%'"
    numbers = [str(item["experiment_id"]) for item in experiments]
    found = reader._search(numbers, query, "attributes.start_time DESC")
    if len(name) == _ID_DIGITS:
        try:
            run = reader.run(name)
        except TrackingError as error:
            if error.code != NOT_FOUND:
                raise
        else:
            found += [run] if Tag.RUN_KEY in run.tags else []
    return sorted(found, key=lambda run: run.status != "FINISHED")
