"""Read the state and the figures of every Run of a submission from MLflow."""

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from orchestrator.planning.plan import from_plain, json_digest
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import Comparison, RunRecord, State
from orchestrator.study_data.seed_cuts import cut_of
from orchestrator.tracking.mlflow_client import MlflowReader, TrackedRun, TrackingError
from orchestrator.tracking.mlflow_writer import MlflowWriter
from orchestrator.tracking.tags import Kind, Tag, current_names, identity_of, owner_of

log = logging.getLogger(__name__)
_FINISHED, _MANY = "finished.json", 100  # see `store_finished`
_CALLS_AT_ONCE = 8  # one call a curve
_FACTS = (
    Tag.PRECISION, Tag.DEVICE, Tag.TORCH, Tag.WORKERS, Tag.RESUMED_WITH, Tag.TEST_IMAGES,
    Tag.ONE_CLASS,
)  # fmt: skip


class _Progress(TypedDict, total=False):
    """Describes the tag `progress` of a Run or a search, of any version."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    done: float
    total: float | None
    loss: float | None
    images_per_s: float | None
    seconds_left: float | None
    facts: dict[str, Any]
    counts: dict[str, int]
    best: dict[str, Any] | None


_PROGRESS = TypeAdapter(_Progress)


@dataclass(frozen=True)
class RunState:
    """A planned Run and what MLflow says of it."""

    run: Run
    state: State
    run_id: str | None  # MLflow's; None before the Run has started
    progress: Mapping[str, Any]  # as the worker reports it, empty before it does
    reason: str  # why it failed, was stopped or is blocked
    tracked: TrackedRun | None

    def fact(self, name: str) -> str:
        """Return a fact that the Run's last attempt reported; empty if it has not yet. name: of a
        `Tag`, such as `weight_transfer`."""
        tags = self.tracked.tags if self.tracked else {}
        return str(tags.get(name) or current_names(self.progress.get("facts", {})).get(name, ""))


@dataclass(frozen=True)
class SearchState:
    """A planned search and what MLflow says of it."""

    # as in the plan: its settings, with `stage`, `count` of trials, and the stages `behind` it that
    # start from its result
    spec: Mapping[str, Any]
    state: State
    reason: str
    counts: Mapping[str, int]  # RUNNING, FINISHED, STOPPED, FAILED → trials
    best: Mapping[str, Any] | None  # label, figure and values of the best trial so far
    tracked: TrackedRun | None

    @property
    def name(self) -> str:
        return f"search {self.spec['stage']}"

    @property
    def ended(self) -> int:
        """Return how many trials have ended."""
        return sum(number for state, number in self.counts.items() if state != State.RUNNING)


@dataclass(frozen=True)
class Submission:
    """A submission of a study with its Runs and searches."""

    tracked: TrackedRun
    plan: Mapping[str, Any]
    runs: tuple[RunState, ...]
    searches: tuple[SearchState, ...] = ()

    @property
    def finished(self) -> bool:
        """Return whether every Run and every search has finished."""
        states = [item.state for item in self.runs] + [item.state for item in self.searches]
        return all(state == State.FINISHED for state in states)


def newest(reader: MlflowReader, study: str, home: str) -> Submission | None:
    """Return a home's newest submission of a study with its Runs; None where it has none. home: its
    name."""
    submission = reader.newest_submission(study, home)
    return load(reader, submission) if submission else None


def find_newest(reader: MlflowReader, study: str, home: str) -> tuple[TrackedRun | None, str]:
    """Return a home's newest submission of a study, or the newest one of others where the home has
    none; and, of others, whose it is."""
    own = reader.newest_submission(study, home)
    others = [] if own else reader.submissions(study)
    return (others[0], owner_of(others[0].tags, home)) if others else (own, "")


def newest_of_any(reader: MlflowReader, study: str, home: str) -> tuple[Submission | None, str]:
    """Return what `find_newest` does, with the submission's Runs."""
    tracked, owner = find_newest(reader, study, home)
    return load(reader, tracked) if tracked else None, owner


def load(
    reader: MlflowReader, submission: TrackedRun, plan: Mapping[str, Any] | None = None
) -> Submission:
    """Return a submission with its Runs as MLflow has them now; from one file where all have
    finished. plan: the submission's, where it is known."""
    plan = reader.plan(submission) if plan is None else plan
    children = _stored_finished(reader, submission)
    if children is None:
        children = reader.children(submission)
    runs = run_states(from_plain(plan), [c for c in children if not _is_search(c)])
    return Submission(submission, plan, runs, search_states(plan, children, runs))


def store_finished(writer: MlflowWriter, submission: Submission) -> Submission:
    """Store how the Runs and searches of a submission ended, once all have FINISHED: one file
    beside its plan. Returns the submission with the tag that says so.

    Nothing of them changes any more, and MLflow needs seconds to find a thousand Runs. A Run that
    is deleted in MLflow is noticed, but not what `mlflow gc` has removed.
    """
    children = [item.tracked for item in submission.runs]
    children += [item.tracked for item in submission.searches]
    by_id = {run.run_id: dict(vars(run)) for run in children if run is not None}
    if len(by_id) < _MANY or not submission.finished:
        return submission
    text = json.dumps(list(by_id.values()))
    tracked, tags = submission.tracked, {str(Tag.FINISHED): _digest(text)}
    writer.log_text(tracked.run_id, text, _FINISHED)
    writer.set_tags(tracked.run_id, tags)
    return replace(submission, tracked=replace(tracked, tags={**tracked.tags, **tags}))


def _stored_finished(reader: MlflowReader, submission: TrackedRun) -> list[TrackedRun] | None:
    """Return what `store_finished` has stored of a FINISHED submission; None where it has not,
    where another version has, where the file is damaged, or where a Run was deleted since."""
    digest = submission.tags.get(Tag.FINISHED)
    if submission.status != State.FINISHED or digest is None or reader.has_deleted(submission):
        return None
    try:
        text = reader.text(submission.run_id, _FINISHED)
    except (TrackingError, UnicodeDecodeError):  # if MLflow is away, the search for Runs says so
        return None
    if _digest(text) != digest:
        return None
    return [TrackedRun(**{**entry, "tags": current_names(entry["tags"])})
            for entry in json.loads(text)]  # fmt: skip


def _digest(text: str) -> str:
    """Return the digest of a file and of the names of the fields that it has of a Run."""
    return json_digest([[item.name for item in fields(TrackedRun)], text])


def _is_search(child: TrackedRun) -> bool:
    return child.tags.get(Tag.KIND) == Kind.SEARCH


def search_states(
    plan: Mapping[str, Any], children: Iterable[TrackedRun], runs: Iterable[RunState]
) -> tuple[SearchState, ...]:
    """Join planned searches with MLflow's."""
    by_stage = {child.tags[Tag.STAGE]: child for child in children if _is_search(child)}
    blocking = {item.run.stage for item in runs if item.state.blocks}  # stages
    states: list[SearchState] = []
    for spec in plan.get("searches", ()):
        child = by_stage.get(spec["stage"])
        if child is None:
            state, reason, progress = State.PENDING, "", {}
            if spec["after"] in blocking:
                state = State.BLOCKED
        else:
            state, reason = _state(child), child.tags.get(Tag.REASON, "")
            progress = _progress(child)
        counts, best = progress.get("counts", {}), progress.get("best")
        states.append(SearchState(spec, state, reason, counts, best, child))
        if state.blocks:
            blocking |= {spec["stage"], *spec["behind"]}
    return tuple(states)


def run_states(runs: Iterable[Run], children: Iterable[TrackedRun]) -> tuple[RunState, ...]:
    """Join planned Runs with MLflow's, in the plan's order (parents first)."""
    by_identity = {identity_of(child.tags): child for child in children}
    states: list[RunState] = []
    by_key: dict[str, RunState] = {}
    for run in runs:
        child = by_identity.get((run.key, run.label))
        parent = by_key.get(run.parent) if run.parent else None
        if child is not None:
            reason = child.tags.get(Tag.REASON, "")
            item = RunState(run, _state(child), child.run_id, _progress(child), reason, child)
        elif parent is not None and parent.state.blocks:
            reason = f"{parent.run.name} {parent.state}"
            item = RunState(run, State.BLOCKED, None, {}, reason, None)
        elif run.key in by_key:  # the same Run under another label
            item = replace(by_key[run.key], run=run)
        else:
            item = RunState(run, State.PENDING, None, {}, "", None)
        by_key.setdefault(run.key, item)
        states.append(item)
    return tuple(states)


def _state(child: TrackedRun) -> State:
    return State.PENDING if child.status == "SCHEDULED" else State(child.status)


def _progress(child: TrackedRun) -> dict[str, Any]:
    """Return how far a Run or a search is; nothing, and a warning, where its tag is damaged."""
    text = child.tags.get(Tag.PROGRESS) or "{}"
    try:
        return dict(_PROGRESS.validate_json(text))
    except ValidationError:
        log.warning("MLflow run %s: the tag %s is damaged", child.run_id, Tag.PROGRESS)
        return {}


def comparison(plan: Mapping[str, Any]) -> Comparison:
    """Return what the plan wants compared."""
    compare = plan["compare"]
    pairs = compare.get("differences", compare.get("gains", ()))  # `gains`: in older plans
    return Comparison(
        compare["metric"],
        tuple(compare["stages"]),
        compare["rows"],
        tuple(compare["plots"]),
        plan["reference"],
        tuple((one, other) for one, other in pairs),
        tuple(compare.get("figures", ())),
        tuple(spec["stage"] for spec in plan.get("searches", ())),
        {name: tuple(lines) for name, lines in plan.get("cautions", {}).items()},
    )


def records(submission: Submission) -> list[RunRecord]:
    """Return the Runs with their last figures, without curves."""
    cuts = [cut_of(str(item.run.config["dataset"])) for item in submission.runs]
    parts: dict[str, set[str]] = {}  # data set that seeds cut → fingerprints of its cuts
    for item, cut in zip(submission.runs, cuts, strict=True):
        if cut:
            parts.setdefault(cut.data, set()).add(item.run.dataset)
    ratios = submission.plan.get("splits", {})
    return [
        RunRecord(
            stage=item.run.stage,
            label=item.run.label,
            seed=item.run.seed,
            key=item.run.key,
            state=item.state,
            run_id=item.run_id,
            trainable=item.run.trainable,
            dataset=json_digest(sorted(parts[cut.data])) if cut else item.run.dataset,
            data_name=cut.data if cut else str(item.run.config["dataset"]),
            metrics=item.tracked.metrics if item.tracked else {},
            history={},
            facts={name: fact for name in _FACTS if (fact := item.fact(name))},
            fold=cut.number if cut and cut.folds else None,
            folds=(cut and cut.folds) or 1,
            split=cut.number if cut and not cut.folds else None,
            test_ratio=ratios.get(cut.data, 0.0) if cut else 0.0,
            vary=item.run.vary,
        )
        for item, cut in zip(submission.runs, cuts, strict=True)
    ]


def artifacts_of(reader: MlflowReader, item: RunState) -> list[tuple[str, str]]:
    """Return a producer's artifacts as MLflow run and path: a reused Run's are with the original,
    which may still be uploading them."""
    if not item.run.artifacts or item.state != State.FINISHED or item.tracked is None:
        return []
    run_id = item.tracked.tags.get(Tag.REUSED_FROM, item.tracked.run_id)
    return [(run_id, path) for path in reader.files(run_id, item.run.artifacts)]


def with_curves(
    runs: Iterable[RunRecord], reader: MlflowReader, spec: Comparison, always: Iterable[str]
) -> list[RunRecord]:
    """Return the Runs with histories: of compared Runs that of the metric, over its own split and
    over validation; of every Run those of the metrics `always`."""
    figure = spec.metric.partition("/")[2]
    compared = [name for name in (f"val/{figure}", spec.metric) if not name.startswith("/")]

    def with_curve(record: RunRecord) -> RunRecord:
        wanted = {*always, *(compared if record.stage in (spec.stages or ()) else ())}
        names = sorted(wanted & record.metrics.keys()) if record.run_id else ()
        history = {name: reader.history(str(record.run_id), name) for name in names}
        return replace(record, history=history)

    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        return list(pool.map(with_curve, runs))
