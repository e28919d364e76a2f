"""Make the plan: the Runs of a study in order, and why each one must still be trained.

Nothing here needs Ray, MLflow or the data itself.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NotRequired, get_type_hints

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from orchestrator.config.errors import UserError
from orchestrator.planning.run import VARIED, Inputs, Run, Texts, label_texts, make_run
from trainables.config import as_plain
from trainables.metrics import Metric, add_own

if TYPE_CHECKING:  # reading a plan must not cost the import of torch, which a study needs
    from orchestrator.config.study_schema import Stage, Study

FORMAT = 2  # of plan.json; a change of Run changes it
State = Literal["new", "done", "resumable"]


class UnknownPlan(UserError):
    """A stored plan was written by another version; the message is one line."""


def make_plan(study: "Study", inputs: Inputs) -> tuple[Run, ...]:
    """Return every Run of a study, parents first, seeds innermost.

    A stage whose search has not ended has no Runs yet, and neither have the stages downstream.
    """
    runs_of: dict[str, list[Run]] = {}
    for stage in study.stages:
        if stage.search is not None or (stage.after is not None and stage.after not in runs_of):
            continue
        runs = [
            make_run(stage, texts, config, parent, seed, inputs)
            for texts, config in _points(stage)
            for seed in stage.seeds
            for parent in _parents(stage, seed, runs_of)
        ]
        order = {label: place for place, label in enumerate(dict.fromkeys(r.label for r in runs))}
        runs_of[stage.name] = sorted(runs, key=lambda run: order[run.label])
    return tuple(run for runs in runs_of.values() for run in runs)


def _points(stage: "Stage") -> list[tuple[Texts, dict[str, Any]]]:
    """Return of every point of a stage's grid what its label shows, and its configuration."""
    texts = label_texts([variant.values for variant in stage.variants])
    return [(t, as_plain(v.config)) for t, v in zip(texts, stage.variants, strict=True)]


def _parents(stage: "Stage", seed: int, runs_of: Mapping[str, list[Run]]) -> Iterable[Run | None]:
    """Return the Runs that a stage's Runs of a seed start from; [None] where it has no parent."""
    if stage.after is None:
        return [None]
    return [run for run in runs_of[stage.after] if run.seed == seed]


@dataclass(frozen=True)
class PlannedRun:
    """A Run, whether it is done, and why it is not or how far it is."""

    run: Run
    state: State
    why: str


def plan_states(
    runs: Iterable[Run],
    state_of: Callable[[str], tuple[State, str]],
    previous: Sequence[Run],
) -> tuple[PlannedRun, ...]:
    """Return every Run with its state and the reason for it.

    state_of: Run key → state and detail, from the store. previous: the Runs of the study's last
    plan.
    """
    planned, keys = [], {run.key for run in previous}
    by_name = {(run.label, run.seed): run for run in previous}
    for run in runs:
        state, detail = state_of(run.key)
        before = run if run.key in keys else by_name.get((run.label, run.seed))
        why = detail if state != "new" else _reason_to_run(run, before)
        planned.append(PlannedRun(run, state, why))
    return tuple(planned)


def _reason_to_run(run: Run, before: Run | None) -> str:
    """Say what changed since the last plan. before: the Run itself where that plan has it, else
    the one of the same label and seed in it."""
    if before is None:
        return "first time"
    if before.key == run.key:
        return "not started yet"
    reasons = []
    if before.code != run.code:
        reasons.append("code changed")
    if before.dataset != run.dataset:
        reasons.append("data changed")
    names = sorted({*run.config, *before.config} - {"dataset"})
    changed = [name for name in names if run.config.get(name) != before.config.get(name)]
    reasons += [
        f"config changed: {name} {before.config.get(name)} → {run.config.get(name)}"
        for name in changed
    ]
    if before.weights != run.weights and "weights" not in changed:
        reasons.append("weights file changed")
    if before.parent != run.parent:
        reasons.append("parent changed")
    return ", ".join(reasons) or "trainable changed"


def plan_digest(study: "Study", runs: Sequence[Run], inputs: Inputs) -> str:
    """Return 16 hexadecimal digits: two submissions with the same digest ask for the same.

    Stages that wait for a search have no Runs yet; they count with all that will decide their Runs.
    """
    planned = {run.stage for run in runs}
    waiting = [
        {
            "stage": stage.name,
            "trainable": stage.trainable,
            "after": stage.after,
            "seeds": stage.seeds,
            **({"vary": stage.vary} if stage.vary != VARIED else {}),
            "variants": [
                {
                    "values": variant.values,
                    "config": as_plain(variant.config),
                    "code": inputs.code(stage.trainable, as_plain(variant.config)),
                    "dataset": inputs.fingerprints[variant.config.dataset],
                    "weights": inputs.weights.get(variant.config.weights),
                }
                for variant in stage.variants
            ],
        }
        for stage in study.stages
        if stage.name not in planned
    ]
    plan = to_plain(study, runs)
    return json_digest(plan | {"waiting": waiting} if waiting else plan)


def json_digest(plain: Any) -> str:
    """Return 16 hexadecimal digits that are the same for the same JSON-ready data."""
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def downstream_stages(study: "Study", name: str) -> list[str]:
    """Return the names of the stages that start from a stage, directly or not."""
    names = [name]
    for stage in study.stages:  # parents first
        if stage.after in names:
            names.append(stage.name)
    return names[1:]


def to_plain(
    study: "Study", runs: Iterable[Run], keys: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the plan as JSON-ready data, which `compare`, `status` and the next plan read.

    keys: stage → key of its search, where it is known.
    """
    searches = [
        {
            "stage": name,
            "after": _parent_of(study, search.over[0] if search.over else name),
            "key": (keys or {}).get(name),
            "behind": downstream_stages(study, name),
            "count": search.count,
            **search.model_dump(mode="json"),
        }
        for name, search in study.searches.items()
    ]
    metrics = [asdict(metric) for metric in study.metrics]
    return {
        "format": FORMAT,
        "study": study.name,
        "question": study.question,
        **({"metrics": metrics} if metrics else {}),
        "compare": study.compare.model_dump(mode="json"),
        "reference": dict(study.reference),
        "searches": searches,
        "runs": [_plain_run(run) for run in runs],
    }


def _plain_run(run: Run) -> dict[str, Any]:
    """Return a Run as JSON-ready data; without what its seed varies where that is as ever."""
    plain = dict(vars(run)) | {"vary": list(run.vary)}
    return plain if run.vary != VARIED else {k: v for k, v in plain.items() if k != "vary"}


def _parent_of(study: "Study", name: str) -> str | None:
    """Return the stage that a stage starts from."""
    return next((stage.after for stage in study.stages if stage.name == name), None)


def from_plain(plan: Mapping[str, Any]) -> tuple[Run, ...]:
    """Return the Runs of a plan that `to_plain` wrote, and register the metrics of own code in it.
    Raises UnknownPlan for another version."""
    if plan.get("format") != FORMAT:
        raise UnknownPlan(
            f"the plan of study {plan.get('study')} was written by another version of the "
            "orchestrator: submit the study again"
        )
    try:
        _stored_plan().validate_python(plan)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UnknownPlan(
            f"the stored plan of study {plan.get('study')} is damaged ({key}: {first['msg']}): "
            "submit the study again"
        ) from error
    try:
        add_own(Metric(**metric) for metric in plan.get("metrics", ()))
    except ValueError as error:
        raise UnknownPlan(f"the stored plan of study {plan.get('study')}: {error}") from error
    return tuple(Run(**run | {"vary": tuple(run.get("vary", VARIED))}) for run in plan["runs"])


_StoredRun = TypedDict(  # type: ignore[misc]
    "_StoredRun", get_type_hints(Run) | {"vary": NotRequired[tuple[str, ...]]}
)


class _StoredComparison(TypedDict):
    """Names what a plan wants compared."""

    metric: str
    stages: list[str] | None
    rows: str
    plots: list[str]


class _StoredSearch(TypedDict):
    """Describes a search of a plan."""

    stage: str
    after: str | None
    behind: list[str]
    count: int


class _StoredMetric(TypedDict):
    """Describes a metric of own code."""

    name: str
    mode: Literal["min", "max"]
    unit: str
    label: str


class _StoredPlan(TypedDict):
    """Holds what `to_plain` of this version writes."""

    study: str
    question: NotRequired[str]
    metrics: NotRequired[list[_StoredMetric]]
    compare: NotRequired[_StoredComparison]
    reference: NotRequired[dict[str, float]]
    searches: NotRequired[list[_StoredSearch]]
    cautions: NotRequired[dict[str, list[str]]]  # data set → why its figures may be too good
    splits: NotRequired[dict[str, float]]  # `seed_cuts.ratios_of_test`, where seeds vary the split
    runs: list[_StoredRun]


@functools.cache
def _stored_plan() -> TypeAdapter[_StoredPlan]:
    """Return what checks a stored plan; it takes some ms to make."""
    return TypeAdapter(_StoredPlan)
