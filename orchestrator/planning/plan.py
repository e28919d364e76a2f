"""Study → ordered Runs with content keys, and why each Run must still be trained. No Ray here."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.config.errors import UserError
from orchestrator.planning.run import Inputs, Run, make_run
from trainables.config import as_plain

if TYPE_CHECKING:  # reading a plan must not cost the import of torch, which a study needs
    from orchestrator.config.study_schema import Stage, Study

FORMAT = 2  # of plan.json; a change of Run changes it
State = Literal["new", "done", "resumable"]


class UnknownPlan(UserError):
    """A stored plan of another version; one line."""


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
