"""MLflow → the state and the figures of every Run of a submission."""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from orchestrator.config.errors import Refused
from orchestrator.planning.plan import from_plain, json_digest
from orchestrator.planning.run import Run
from orchestrator.reporting.comparison import Comparison, RunRecord
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker, TrackingError

_FINISHED, _MANY = "finished.json", 100  # see `keep`
_CALLS_AT_ONCE = 8  # MLflow's client asks for one curve a call


@dataclass(frozen=True)
class RunState:
    """A planned Run and what MLflow says of it. state: PENDING (which MLflow calls SCHEDULED when
    the Run has been tried before), RUNNING, FINISHED, FAILED, KILLED or BLOCKED (its parent
    failed)."""

    run: Run
    state: str
    run_id: str | None
    progress: Mapping[str, Any]
    reason: str
    tracked: TrackedRun | None

    def fact(self, name: str) -> str:
        """What the Run's last attempt said of itself, such as `hand_off`; empty if nothing yet."""
        tags = self.tracked.tags if self.tracked else {}
        return str(tags.get(name) or self.progress.get("facts", {}).get(name, ""))


@dataclass(frozen=True)
class SearchState:
    """A planned search and what MLflow says of it. state: PENDING, RUNNING, FINISHED, FAILED,
    KILLED or BLOCKED (its parent failed)."""

    spec: Mapping[str, Any]  # its form, with `stage`, `count` of trials and the stages `behind` it
    state: str
    reason: str
    counts: Mapping[str, int]  # RUNNING, FINISHED, STOPPED, FAILED → trials
    best: Mapping[str, Any] | None  # label, figure and values of the best so far
    tracked: TrackedRun | None

    @property
    def name(self) -> str:
        return f"search {self.spec['stage']}"

    @property
    def ended(self) -> int:
        """Trials that have."""
        return sum(number for state, number in self.counts.items() if state != "RUNNING")


@dataclass(frozen=True)
class Submission:
    """The newest submission of a study."""

    tracked: TrackedRun
    plan: Mapping[str, Any]
    runs: tuple[RunState, ...]
    searches: tuple[SearchState, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether every Run and every search has."""
        states = [item.state for item in self.runs] + [item.state for item in self.searches]
        return all(state == "FINISHED" for state in states)


def newest(tracker: Tracker, study: str) -> Submission | None:
    """The newest submission of a study with its Runs; None where there is none."""
    found = tracker.submissions(study, 1)
    if not found:
        return None
    return load(tracker, found[0])


def load(
    tracker: Tracker, submission: TrackedRun, plan: Mapping[str, Any] | None = None
) -> Submission:
    """A submission with the states of its Runs as MLflow has them now; as it had them at the end
    when all have finished. plan: the submission's, where it is known."""
    plan = tracker.plan(submission) if plan is None else plan
    children = _kept(tracker, submission)
    if children is None:
        children = tracker.children(submission)
    runs = run_states(from_plain(plan), [c for c in children if c.tags.get("kind") != "search"])
    return Submission(submission, plan, runs, search_states(plan, children, runs))


def keep(tracker: Tracker, submission: Submission) -> None:
    """Store how the Runs and searches of a submission ended, once all have FINISHED: one file
    beside its plan. Nothing of them changes any more, and a file is read where MLflow needs seconds
    to find a thousand; a few are found as fast. What is deleted in MLflow is seen (but not what
    `mlflow gc` has removed)."""
    found = [item.tracked for item in submission.runs]
    found += [item.tracked for item in submission.searches]
    once = {each.run_id: dict(vars(each)) for each in found if each is not None}
    if len(once) < _MANY or not submission.finished:
        return
    text = json.dumps(list(once.values()))
    run_id = submission.tracked.run_id
    tracker.log_text(run_id, text, _FINISHED)
    tracker.set_tags(run_id, {"finished": _seal(text)})


def _kept(tracker: Tracker, submission: TrackedRun) -> list[TrackedRun] | None:
    """What `keep` has stored of a FINISHED submission; None where it has not, where another version
    has, where the file is damaged, or where one of the Runs was deleted since."""
    wanted = submission.tags.get("finished")
    if submission.status != "FINISHED" or wanted is None or tracker.has_lost(submission):
        return None
    try:
        text = tracker.text(submission.run_id, _FINISHED)
    except (TrackingError, UnicodeDecodeError):  # if MLflow is away, the search for them says so
        return None
    return [TrackedRun(**each) for each in json.loads(text)] if _seal(text) == wanted else None


def _seal(text: str) -> str:
    """Digest of a file and of the names of what it has of a Run."""
    return json_digest([[each.name for each in fields(TrackedRun)], text])


def search_states(
    plan: Mapping[str, Any], children: Iterable[TrackedRun], runs: Iterable[RunState]
) -> tuple[SearchState, ...]:
    """Planned searches joined with MLflow's."""
    found = {c.tags["stage"]: c for c in children if c.tags.get("kind") == "search"}
    failed = {item.run.stage for item in runs if item.state in ("FAILED", "KILLED", "BLOCKED")}
    states: list[SearchState] = []
    for spec in plan.get("searches", ()):
        child = found.get(spec["stage"])
        said = json.loads(child.tags.get("progress") or "{}") if child else {}
        state = _state(child) if child else "BLOCKED" if spec["after"] in failed else "PENDING"
        reason = child.tags.get("reason", "") if child else ""
        counts, best = said.get("counts", {}), said.get("best")
        states.append(SearchState(spec, state, reason, counts, best, child))
        if state in ("FAILED", "KILLED", "BLOCKED"):
            failed |= {spec["stage"], *spec["behind"]}
    return tuple(states)


def run_states(runs: Iterable[Run], children: Iterable[TrackedRun]) -> tuple[RunState, ...]:
    """Planned Runs joined with MLflow's, in the plan's order (parents first)."""
    tracked = {(child.tags["label"], child.tags["seed"]): child for child in children}
    states: list[RunState] = []
    by_key: dict[str, RunState] = {}
    for run in runs:
        child = tracked.get((run.label, str(run.seed)))
        parent = by_key.get(run.parent) if run.parent else None
        if child is not None:
            progress = json.loads(child.tags.get("progress") or "{}")
            reason = child.tags.get("reason", "")
            state = RunState(run, _state(child), child.run_id, progress, reason, child)
        elif parent is not None and parent.state in ("FAILED", "KILLED", "BLOCKED"):
            state = RunState(run, "BLOCKED", None, {}, f"{parent.run.name} {parent.state}", None)
        elif run.key in by_key:  # the same Run under another label
            state = replace(by_key[run.key], run=run)
        else:
            state = RunState(run, "PENDING", None, {}, "", None)
        by_key.setdefault(run.key, state)
        states.append(state)
    return tuple(states)


def _state(child: TrackedRun) -> str:
    return "PENDING" if child.status == "SCHEDULED" else child.status


def comparison(plan: Mapping[str, Any]) -> Comparison:
    """What the plan wants compared."""
    compare = plan["compare"]
    pairs = compare.get("differences", compare.get("gains", ()))  # `gains`: in older plans
    return Comparison(
        compare["metric"],
        tuple(compare["stages"]),
        compare["rows"],
        tuple(compare["plots"]),
        plan["reference"],
        tuple((one, other) for one, other in pairs),
    )


def records(submission: Submission) -> list[RunRecord]:
    """The Runs with their last figures, without curves."""
    return [
        RunRecord(
            stage=item.run.stage,
            label=item.run.label,
            seed=item.run.seed,
            key=item.run.key,
            state=item.state,
            run_id=item.run_id,
            trainable=item.run.trainable,
            dataset=item.run.dataset,
            data_name=str(item.run.config["dataset"]),
            metrics=item.tracked.metrics if item.tracked else {},
            history={},
        )
        for item in submission.runs
    ]


def with_curves(
    found: Iterable[RunRecord], tracker: Tracker, spec: Comparison, always: Iterable[str]
) -> list[RunRecord]:
    """The same Runs with histories: of compared Runs that of the metric, over its own split and
    over validation; of every Run those of the metrics `always`."""
    figure = spec.metric.partition("/")[2]
    names = [name for name in (f"val/{figure}", spec.metric) if not name.startswith("/")]

    def with_curve(record: RunRecord) -> RunRecord:
        wanted = {*always, *(names if record.stage in (spec.stages or ()) else ())}
        there = sorted(wanted & record.metrics.keys()) if record.run_id else ()
        history = {name: tracker.history(str(record.run_id), name) for name in there}
        return replace(record, history=history)

    with ThreadPoolExecutor(_CALLS_AT_ONCE) as pool:
        return list(pool.map(with_curve, found))


class Named(NamedTuple):
    """A Run or a trial as somebody may ask for it."""

    label: str
    seed: str
    key: str
    run_id: str | None


def find_run(tracker: Tracker, name: str) -> tuple[str, str | None]:
    """Key and MLflow run of `study/label/seed`, of a key's beginning, or of an MLflow run's id; a
    trial's too. Raises Refused."""
    if "/" in name:
        study, _, rest = name.partition("/")
        label, _, seed = rest.rpartition("/")
        submission = newest(tracker, study)
        runs = _named(tracker, submission) if submission else []
        same = [item for item in runs if (item.label, item.seed) == (label, seed)]
        if not same:
            names = ", ".join(f"{study}/{item.label}/{item.seed}" for item in runs[:8])
            raise Refused(f"no Run {name}" + (f" (such as {names})" if names else ""), 1)
        return same[0].key, same[0].run_id
    found: dict[str, str | None] = {}
    for tracked in tracker.newest_submissions().values():
        for item in _named(tracker, load(tracker, tracked)):
            if name and (item.key.startswith(name) or item.run_id == name):
                found[item.key] = found.get(item.key) or item.run_id
    if len(found) > 1:
        raise Refused(f"{name} is the beginning of several keys: {', '.join(found)}", 1)
    if not found:
        raise Refused(f"no Run {name}: give study/label/seed, a key or an MLflow run id", 1)
    return next(iter(found.items()))


def _named(tracker: Tracker, submission: Submission) -> list[Named]:
    """The Runs of a submission, then the trials of its searches."""
    runs = [Named(i.run.label, str(i.run.seed), i.run.key, i.run_id) for i in submission.runs]
    searches = [item.tracked for item in submission.searches if item.tracked is not None]
    trials = [trial for search in searches for trial in tracker.children(search)]
    tags = [(trial.tags, trial.run_id) for trial in trials]
    return runs + [Named(t["label"], t["seed"], t["run_key"], run_id) for t, run_id in tags]
