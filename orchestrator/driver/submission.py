"""Open the MLflow run of a submission, store its plan in it, close it; take turns with others."""

import json
import logging
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from orchestrator.config.errors import Refused
from orchestrator.config.study_schema import Study
from orchestrator.driver.watch import tell_end
from orchestrator.execution.ray_jobs import Job
from orchestrator.mirror.owners import Owners
from orchestrator.needs.priority import number_of
from orchestrator.notify.notifier import Notifier
from orchestrator.planning.plan import json_digest, to_plain
from orchestrator.planning.prepare import Prepared, build_caches, prepare
from orchestrator.report_page.store import write_report_if_possible
from orchestrator.reporting.comparison import State
from orchestrator.sharing.board import RayBoard
from orchestrator.sharing.claims import Claim
from orchestrator.sharing.turns import Turns
from orchestrator.storage.home import Home
from orchestrator.study_data.data_sets import DataSet
from orchestrator.study_data.seed_cuts import ratios_of_test
from orchestrator.tracking.comparison_report import write_comparison
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import MlflowWriter, Tracker
from orchestrator.tracking.run_states import load, store_finished
from orchestrator.tracking.tags import Kind, Tag

_LONGEST_TAG = 5000  # characters, MLflow's limit

log = logging.getLogger("orchestrator")


def log_plan(
    writer: MlflowWriter,
    experiment_id: str,
    run_id: str,
    prepared: Prepared,
    near: Sequence[str] = (),
) -> None:
    """Store the plan with its version: a command that follows the study reads a new one again.

    What the data sets hold, and what was passed over in them, is stored beside it, and the view of
    MLflow's page that opens on its answer is written. near: warnings of images that look nearly
    like training images.
    """
    plan = to_plain(prepared.study, prepared.runs, prepared.keys)
    if prepared.cautions:
        plan["cautions"] = prepared.cautions
    if ratios := ratios_of_test(prepared.data):
        plan["splits"] = ratios
    writer.log_text(run_id, json.dumps(plan), "plan.json")
    writer.log_text(run_id, json.dumps(data_facts(prepared), indent=1), "data.json")
    tags: dict[str, str] = {Tag.PLAN_VERSION: json_digest(plan)}
    tags[Tag.DATA_REMARKS] = "\n".join([*prepared.remarks, *near])[:_LONGEST_TAG]
    tags[Tag.VIEW] = writer.pages.share_view(experiment_id, run_id, plan)
    writer.set_tags(run_id, tags)


def data_facts(prepared: Prepared) -> dict[str, Any]:
    """Return what each data set holds: classes, images of each part, how many images of the test
    each class has (pixels, where there are masks), files that are not read."""
    return {
        name: {
            "fingerprint": item.fingerprint,
            "classes": list(item.source.classes),
            "images": {part: len(rows) for part, rows in item.source.parts.items()},
            "test_counts": _class_counts(item, "test"),
            "passed_over": [
                {"kind": kind, "reason": reason, "files": count}
                for (kind, reason), count in sorted(item.source.passed_over.items())
            ],
            "notes": list(item.source.notes),
        }
        for name, item in prepared.data.items()
    }


def _class_counts(data: DataSet, part: str) -> list[int]:
    """Return how many images of a part each class has, or pixels where there are masks; empty where
    there are no classes."""
    if data.masks is not None:
        return data.masks.pixels(part)
    source = data.source
    counts = Counter(source.labels[source.parts[part]].tolist())
    return [counts[number] for number in range(len(source.classes))]


def open_submission(tracker: Tracker, prepared: Prepared, job: Job, home: Home) -> TrackedRun:
    """Return the MLflow run of this submission: the newest one of the home that has sent the job
    goes on if its plan is the same, else a new one is created.

    The caller is the study's only driver: what else of the study is RUNNING has lost its driver.
    """
    study, plan, writer = prepared.study, prepared.request_digest, tracker.writer
    tags: dict[str, str] = {
        Tag.JOB: job.job_id,
        Tag.CLUSTER: job.cluster,
        Tag.HOME: home.name,
        Tag.REASON: "",
        Tag.VERSIONS: installed_versions(),
        Tag.JOB_PAGE: f"{job.dashboard}/#/jobs/{job.job_id}" if job.dashboard else "",
    }
    tags[Tag.SUBMITTER] = submitter = job.submitter or home.name
    newest = tracker.reader.newest_submission(study.name, submitter)
    wanted = (plan, home.name)
    is_same = newest and (newest.tags.get(Tag.PLAN), newest.tags.get(Tag.HOME)) == wanted
    _kill_abandoned(tracker, study.name, home, job.job_id, [newest] if newest and is_same else [])
    if newest and is_same:
        return _reopen(tracker, newest, tags, prepared, home)
    tags |= {Tag.STUDY: study.name, Tag.PLAN: plan, Tag.KIND: Kind.OPENING}
    if job.git_commit:
        tags[Tag.GIT_COMMIT] = job.git_commit
    experiment = writer.experiment(study.name)
    # a try that MLflow has broken off goes on with its run
    begun = tracker.reader.submission_of(study.name, job.job_id, Kind.OPENING)
    name = f"submission {job.job_id}"
    run_id = begun.run_id if begun else writer.create_run(experiment, name, tags)
    text = yaml.safe_dump(dict(study.mapping), sort_keys=False, allow_unicode=True)
    writer.log_text(run_id, text, "study.yaml")
    near = prepared.near_remarks(home, compute=True)
    log_plan(writer, experiment, run_id, prepared, near)
    # last: commands look for submissions, and then read the plan
    writer.set_tags(run_id, {Tag.KIND: Kind.SUBMISSION})
    return tracker.reader.run(run_id)


def installed_versions() -> str:
    """Return what the driver runs with, such as `vision-orchestrator 0.1.0, Python 3.11.7`."""
    parts = []
    for name, software in (("vision-orchestrator", "vision-orchestrator"), ("ray", "Ray"),
                           ("mlflow", "MLflow")):  # fmt: skip
        try:
            parts.append(f"{software} {metadata.version(name)}")
        except metadata.PackageNotFoundError:  # a clone that is not installed
            continue
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def _reopen(
    tracker: Tracker,
    submission: TrackedRun,
    tags: Mapping[str, str],
    prepared: Prepared,
    home: Home,
) -> TrackedRun:
    """Set an earlier submission, and its Runs that are tried again, to not ended."""
    tracker.writer.set_tags(submission.run_id, tags)
    tracker.writer.set_status(submission.run_id, State.RUNNING)
    near = prepared.near_remarks(home, compute=True)
    log_plan(tracker.writer, submission.experiment_id, submission.run_id, prepared, near)
    for child in tracker.reader.children(submission):
        failed = child.status in (State.FAILED, State.KILLED)
        if failed and child.tags.get(Tag.KIND) != Kind.SEARCH:
            tracker.writer.set_status(child.run_id, "SCHEDULED")
    return submission


def _kill_abandoned(
    tracker: Tracker, study: str, home: Home, job: str, except_for: Sequence[TrackedRun]
) -> None:
    """Set to KILLED what drivers of this home that have died left RUNNING. job: of this driver."""
    for kind in (Kind.OPENING, Kind.SUBMISSION):
        for submission in tracker.reader.submissions(study, kind=kind):
            ours = submission.tags.get(Tag.HOME) == home.name
            own = submission.tags.get(Tag.JOB) == job
            abandoned = ours and not own and submission.status == State.RUNNING
            if not abandoned or submission in except_for:
                continue
            for run in tracker.reader.tree(submission):
                tracker.writer.kill_if_open(run, "its driver is gone")


def close_submission(
    tracker: Tracker,
    submission: TrackedRun,
    states: Mapping[str, str],
    sent: bool,
    prices: Mapping[str, Any] | None = None,
    notifier: Notifier | None = None,
) -> int:
    """Write the comparison and the report, and set the submission's status. Returns the driver's
    exit status.

    states: of every Run and search, by key or name; sent: whether MLflow has all results; prices:
    `price:` of the settings; notifier: who is told. Raises Refused where MLflow lacks results.
    """
    failed = sum(state != State.FINISHED for state in states.values())
    log.info("%d of %d Runs and searches finished", len(states) - failed, len(states))
    if not sent:
        raise Refused("MLflow lacks some results; the next submit or status sends them", 1)
    for child in tracker.reader.children(submission):
        if child.status == "SCHEDULED":  # it ended in an earlier submission
            tracker.writer.kill_if_open(child, "not started in this submission")
    closed = load(tracker.reader, tracker.reader.run(submission.run_id))
    closed = store_finished(tracker.writer, closed)
    write_comparison(tracker, closed)
    write_report_if_possible(tracker, closed, prices or {})
    reason = f"{failed} of {len(states)} Runs and searches did not finish" if failed else ""
    tracker.writer.set_tags(submission.run_id, {Tag.REASON: reason})
    tracker.writer.set_status(submission.run_id, State.FAILED if failed else State.FINISHED)
    if notifier is not None:
        tell_end(notifier, closed, reason)
    return 1 if failed else 0


def plan_with_store(study: Study, job: Job, home: Home, owners: Owners) -> Prepared:
    """Make the plan with what the store has. Raises Refused where a stage cannot use it yet."""
    root = Path(job.data_root) if job.data_root else None
    prepared = prepare(study, root, home)
    if job.store:
        _refuse_unshared(study, prepared)
    if owners.fetch(run.key for run in prepared.runs):
        prepared = prepare(study, root, home)
    return prepared


def _refuse_unshared(study: Study, prepared: Prepared) -> None:
    """Raise Refused for a stage whose processes need one folder, which a store is not."""
    searches = [*(item.stage.name for item in prepared.searches), *prepared.pending]
    if searches:
        raise Refused(f"stage {searches[0]}: a search needs a home without `store`", 1)
    of_many = [stage.name for stage in study.stages if stage.resources.workers != 1]
    produced = [run.stage for run in prepared.runs if run.artifacts and run.stage in of_many]
    if produced:
        raise Refused(f"stage {produced[0]}: with `store` a producer has one worker", 1)


def decode_with_store(prepared: Prepared, job: Job, home: Home, owners: Owners) -> dict[str, Path]:
    """Decode what the plan needs. Returns fingerprint → folder."""
    tables = build_caches(prepared, home, lambda name, done, total: None, job.caches)
    owners.send_images(tables.values())
    return tables


@contextmanager
def taking_turns(job: Job, study: Study) -> Iterator[Turns]:
    """Take turns with the other drivers of the cluster in the block."""
    board, person = RayBoard(), job.submitter or job.home
    try:
        yield Turns(board, Claim(board.job, person, study.name, number_of(study.priority)))
    finally:
        board.leave()
