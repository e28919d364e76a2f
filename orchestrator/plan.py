"""Study → ordered Runs with content keys, and why each Run must still be trained. No Ray here."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.faults import UserError
from trainables.config import ONLY_LOOKS, as_plain

if TYPE_CHECKING:  # reading a plan must not cost the import of torch, which a study needs
    from orchestrator.study_file import Stage, Study

FORMAT = 2  # of plan.json; a change of Run changes it
Values = tuple[tuple[str, Any], ...]
State = Literal["new", "done", "resumable"]


class UnknownPlan(UserError):
    """A stored plan of another version; one line."""


@dataclass(frozen=True)
class Run:
    """One training with its final configuration. `key` is the hash of all that decides it."""

    stage: str
    label: str  # the stage plus the values of its own and its parents' grids
    seed: int
    key: str
    parent: str | None  # key of the Run whose encoder this one starts from
    parent_label: str | None
    trainable: str
    select: str  # the metric that chooses its checkpoint
    predicts: bool  # whether its model says something of an image
    artifacts: str  # of a producer, the folder of what it makes; empty for what learns
    config: Mapping[str, Any]
    dataset: str  # fingerprint
    weights: str | None  # sha256 of the state-dict file it starts from
    code: str

    @property
    def name(self) -> str:
        return f"{self.label} seed {self.seed}"


@dataclass(frozen=True)
class Inputs:
    """What a plan needs to know beside the study; all of it is read where the data is."""

    fingerprints: Mapping[str, str]  # name under `data:` → fingerprint
    weights: Mapping[str, str]  # path of a state-dict file → sha256
    code: Mapping[str, str]  # name of a trainable → code version
    # name of a trainable → configuration → Run.select, Run.predicts, Run.artifacts
    facts: Mapping[str, Callable[[Mapping[str, Any]], tuple[str, bool, str]]]


def make_plan(study: "Study", inputs: Inputs) -> tuple[Run, ...]:
    """Every Run of a study, parents first, seeds innermost; none of a stage that a search is yet to
    configure, or that starts from one."""
    made: dict[str, list[Run]] = {}
    for stage in study.stages:
        if stage.search is not None or (stage.after is not None and stage.after not in made):
            continue
        runs = [
            make_run(stage, (variant.values, config), parent, seed, inputs)
            for variant, config in [(v, as_plain(v.config)) for v in stage.variants]
            for seed in stage.seeds
            for parent in _parents(stage, seed, made)
        ]
        order = {label: place for place, label in enumerate(dict.fromkeys(r.label for r in runs))}
        made[stage.name] = sorted(runs, key=lambda run: order[run.label])
    return tuple(run for runs in made.values() for run in runs)


def _parents(stage: "Stage", seed: int, made: Mapping[str, list[Run]]) -> Iterable[Run | None]:
    if stage.after is None:
        return [None]
    return [run for run in made[stage.after] if run.seed == seed]


def make_run(
    stage: "Stage",
    point: tuple[Values, dict[str, Any]],
    parent: Run | None,
    seed: int,
    inputs: Inputs,
) -> Run:
    """One training. point: the stage's grid values, and its configuration with them."""
    values, config = point
    weights = inputs.weights.get(config["weights"])
    select, predicts, artifacts = inputs.facts[stage.trainable](config)
    looks = () if artifacts else ONLY_LOOKS  # what a producer looks at is what it makes
    hashed = {k: v for k, v in config.items() if k != "dataset" and k not in looks}
    if weights is not None:  # the file's content decides, not where it lies
        hashed["weights"] = "file"
    parts = {
        "trainable": stage.trainable,
        "config": hashed,
        "dataset": inputs.fingerprints[config["dataset"]],
        "weights": weights,
        "seed": seed,
        "parent": parent.key if parent else None,
        "code": inputs.code[stage.trainable],
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return Run(
        stage=stage.name,
        label=_label(stage.name, values, parent),
        seed=seed,
        key=hashlib.sha256(text.encode()).hexdigest()[:20],
        parent=parent.key if parent else None,
        parent_label=parent.label if parent else None,
        trainable=stage.trainable,
        select=select,
        predicts=predicts,
        artifacts=artifacts,
        config=config,
        dataset=str(parts["dataset"]),
        weights=weights,
        code=str(parts["code"]),
    )


def _label(stage: str, point: Values, parent: Run | None) -> str:
    values = [f"{key}={_short(value)}" for key, value in point]
    if parent and "[" in parent.label:
        name, _, inherited = parent.label[:-1].partition("[")
        values += [v if "." in v.split("=")[0] else f"{name}.{v}" for v in inherited.split(",")]
    return f"{stage}[{','.join(values)}]" if values else stage


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "._+-" else "-" for c in text)


@dataclass(frozen=True)
class Planned:
    """A Run and what submitting will do with it."""

    run: Run
    state: State
    why: str


def examine(
    runs: Iterable[Run],
    state_of: Callable[[str], tuple[State, str]],
    previous: Mapping[tuple[str, int], Run],
) -> tuple[Planned, ...]:
    """What is done, what goes on and what is new, each with its reason.

    state_of: key → state and detail, from the store. previous: (label, seed) → the Run of the
    study's last plan.
    """
    planned = []
    for run in runs:
        state, detail = state_of(run.key)
        why = detail if state != "new" else _changed(run, previous.get((run.label, run.seed)))
        planned.append(Planned(run, state, why))
    return tuple(planned)


def _changed(run: Run, before: Run | None) -> str:
    """Why a Run without a result is not the one of the last plan."""
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


def digest(study: "Study", runs: Sequence[Run], inputs: Inputs) -> str:
    """16 hexadecimal digits that name a plan: two submissions with the same one are the same. What
    a search is to configure has no Runs yet, nor has what stands behind it: it is named by all else
    that decides them."""
    planned = {run.stage for run in runs}
    waiting = [
        {
            "stage": stage.name,
            "trainable": stage.trainable,
            "after": stage.after,
            "seeds": stage.seeds,
            "code": inputs.code[stage.trainable],
            "variants": [
                {
                    "values": variant.values,
                    "config": as_plain(variant.config),
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
    return digest_of(plan | {"waiting": waiting} if waiting else plan)


def digest_of(plain: Any) -> str:
    """16 hexadecimal digits that name JSON-ready data."""
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def behind(study: "Study", name: str) -> list[str]:
    """Stages that start from a stage, and from those."""
    found = [name]
    for stage in study.stages:  # parents first
        if stage.after in found:
            found.append(stage.name)
    return found[1:]


def to_plain(
    study: "Study", runs: Iterable[Run], keys: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The plan as JSON-ready data: what compare, status and the next plan read. keys: stage → key
    of its search, where it is known."""
    searches = [
        {
            "stage": name,
            "after": _start(study, search.over[0] if search.over else name),
            "key": (keys or {}).get(name),
            "behind": behind(study, name),
            "count": search.count,
            **search.model_dump(mode="json"),
        }
        for name, search in study.searches.items()
    ]
    return {
        "format": FORMAT,
        "study": study.name,
        "question": study.question,
        "compare": study.compare.model_dump(mode="json"),
        "reference": dict(study.reference),
        "searches": searches,
        "runs": [dict(vars(run)) for run in runs],
    }


def _start(study: "Study", name: str) -> str | None:
    """What a stage starts from."""
    return next((stage.after for stage in study.stages if stage.name == name), None)


def from_plain(plan: Mapping[str, Any]) -> tuple[Run, ...]:
    """The Runs of a plan that `to_plain` wrote. Raises UnknownPlan for another version's."""
    if plan.get("format") != FORMAT:
        raise UnknownPlan(
            f"the plan of study {plan.get('study')} was written by another version of the "
            "orchestrator: submit the study again"
        )
    return tuple(Run(**run) for run in plan["runs"])
