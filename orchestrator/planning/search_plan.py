"""Plan the searches of a study, and put the configurations that they select into the study."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.config.search_schema import (
    DEFAULT,
    Search,
    found_name,
    number_type,
    owner_of,
    values_of,
)
from orchestrator.config.study_schema import CompareSpec, Stage, Study, Variant
from orchestrator.planning.run import Inputs, Run, Values, label_texts, make_run
from orchestrator.sampling.contract import SearchSpace
from orchestrator.sampling.dimension import Kind, typed
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trials, ranked
from trainables.config import as_plain
from trainables.training_config import TrainableConfig


def config_of(stage: Stage, values: Mapping[str, Any]) -> TrainableConfig:
    """Return a stage's configuration with some values replaced. Raises pydantic's
    ValidationError."""
    written = stage.variants[0].config
    if not isinstance(written, TrainableConfig):
        raise TypeError(f"stage {stage.name} makes artifacts: it has no values to search")
    model = type(written)
    given = {name: typed(number_type(model, name), value) for name, value in values.items()}
    return model.model_validate({**written.model_dump(), **given})


def apply_winners(study: Study, name: str, winners: Iterable[Mapping[str, Any]]) -> Study:
    """Return the study after the search of stage `name` has selected its winners.

    The winners become the variants of that stage. The stage as it is written follows it as
    `<name>_default`, to compare with. The stages that were searched with it come before it.
    """
    stages: list[Stage] = []
    compare = study.compare
    for stage in study.stages:
        if stage.name != name or stage.search is None:
            stages.append(stage)
            continue
        then = stage.search.then
        if then is None:
            continue
        written = searched_stages(study, stage)
        selected = _selected_stages(written, list(winners))
        stages += selected
        differs = [
            before.variants[0].config not in [variant.config for variant in after.variants]
            for before, after in zip(written, selected, strict=True)
        ]
        if then.default and any(differs):
            stages.append(replace(stage, name=name + DEFAULT, search=None))
            compare = _compare_with_default(compare, name)
    return replace(study, stages=tuple(stages), compare=compare)


def _selected_stages(written: Sequence[Stage], winners: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """Return searched stages with the winners' values. Each starts from the one before it."""
    searched, after = written[-1], written[0].after
    stages: list[Stage] = []
    for stage in written:
        own = stage is searched
        parts = [values_of(values, "" if own else stage.name) for values in winners]
        variants = tuple(Variant(_label_values(p, parts), config_of(stage, p)) for p in parts)
        name = stage.name if own else found_name(stage.name, searched.name)
        found = replace(stage, name=name, after=after, variants=variants, search=None)
        stages.append(replace(found, seeds=searched.seeds))
        after = name
    return stages


def _label_values(
    values: Mapping[str, Any], winners: Sequence[Mapping[str, Any]]
) -> tuple[tuple[str, Any], ...]:
    """Return the values that a label shows; of `changes` their number, with a digest of them where
    other winners have as many."""
    if "changes" not in values:
        return tuple(values.items())
    changes = values["changes"]
    others = [w["changes"] for w in winners if w.get("changes", changes) != changes]
    shown: Any = len(changes)
    if any(len(other) == shown for other in others):
        text = json.dumps(changes, sort_keys=True)
        shown = f"{shown}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"
    return tuple((k, shown if k == "changes" else v) for k, v in values.items())


def searched_stages(study: Study, stage: Stage) -> list[Stage]:
    """Return the stages that a trial of `stage` trains: those of `over:`, or `stage` alone. The
    last one is `stage`."""
    over = stage.search.over if stage.search else ()
    return [next(s for s in study.stages if s.name == name) for name in over] or [stage]


def _compare_with_default(compare: CompareSpec, name: str) -> CompareSpec:
    listed = list(compare.stages or ())
    if name in listed:
        listed.insert(listed.index(name) + 1, name + DEFAULT)
    differences = [[name, name + DEFAULT], *compare.differences]
    return compare.model_copy(update={"stages": listed, "differences": differences})


@dataclass(frozen=True)
class PlannedSearch:
    """A search that can begin as soon as its parent is trained.

    `key` is a hash of everything that decides what the search selects. The number of trials is not
    in it, so a longer search continues a shorter one. With PBT it is in it: there the trials
    depend on each other.
    """

    stage: Stage
    search: Search
    seed: int
    parent: Run | None  # of the first stage that a trial trains
    key: str
    inputs: Inputs
    upstream: tuple[Stage, ...] = ()  # stages that a trial trains before `stage`, parents first

    @property
    def kinds(self) -> dict[str, Kind]:
        """Return parameter of the space → the type of number that it takes."""
        models = {
            "" if stage is self.stage else stage.name: type(config_of(stage, {}))
            for stage in (*self.upstream, self.stage)
        }
        owners = {name: owner_of(name) for name in self.search.space}
        return {name: number_type(models[owner], field) for name, (owner, field) in owners.items()}

    @property
    def space(self) -> SearchSpace:
        """Return what a sampler draws from."""
        return SearchSpace(self.search.space, self.kinds)

    def runs_of(self, values: Mapping[str, Any]) -> list[Run]:
        """Return the Runs of one trial, parents first, its own last. Raises pydantic's
        ValidationError where values do not fit together."""
        runs: list[Run] = []
        for stage in (*self.upstream, self.stage):
            owner = "" if stage is self.stage else stage.name
            part = values_of(values, owner)
            texts, *_ = label_texts([tuple(part.items()), *self._choices(owner)])
            parent = runs[-1] if runs else self.parent
            config = as_plain(config_of(stage, part))
            runs.append(make_run(stage, texts, config, parent, self.seed, self.inputs))
        return runs

    def _choices(self, owner: str) -> list[Values]:
        """Return every value that another trial may have in place of a trial's own, so that labels
        tell them apart. owner: as in `owner_of`."""
        return [
            ((field, value),)
            for name, dimension in self.search.space.items()
            for prefix, field in [owner_of(name)]
            if prefix == owner
            for value in dimension.choice or ()
        ]

    def run_of(self, values: Mapping[str, Any]) -> Run:
        """Return the Run whose metric judges a trial."""
        return self.runs_of(values)[-1]

    def config_of(self, values: Mapping[str, Any]) -> TrainableConfig:
        """Return the configuration of that Run."""
        return config_of(self.stage, values_of(values, ""))


# keys of `search:` that do not decide what it selects
_NOT_DECIDING = {"trials", "then", "stall_minutes"}


def plan_searches(study: Study, inputs: Inputs, runs: Sequence[Run]) -> list[PlannedSearch]:
    """Return the searches that have not selected yet and whose parent is among `runs`."""
    searches = []
    for stage in study.stages:
        first, *_ = stages = searched_stages(study, stage)
        if stage.search is None or first.after in pending_stages(study):
            continue
        seed = stage.search.trial_seed(stage.seeds)
        parents = [run for run in runs if run.stage == first.after and run.seed == seed]
        parent = parents[0] if parents else None
        upstream = tuple(stages[:-1])
        planned = PlannedSearch(stage, stage.search, seed, parent, "", inputs, upstream)
        searches.append(replace(planned, key=_key_of(planned)))
    return searches


def _key_of(planned: PlannedSearch) -> str:
    """Return 20 hexadecimal digits."""
    exclude = _NOT_DECIDING - ({"trials"} if planned.search.scheduler == "pbt" else set())
    deciding = planned.search.model_dump(mode="json", exclude=exclude)
    text = json.dumps([planned.run_of({}).key, deciding], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def pending_stages(study: Study) -> list[str]:
    """Return the stages that have no Runs yet: those whose search has not selected, and all that
    start from them."""
    pending: list[str] = []
    for stage in study.stages:  # parents first
        if stage.search is not None or stage.after in pending:
            pending.append(stage.name)
    return pending


def best_configurations(store: Store, planned: PlannedSearch) -> list[Mapping[str, Any]]:
    """Return the best configurations of a search, best first; none while it has not ended."""
    search, trials = planned.search, Trials(store.run(planned.key).path)
    if not trials.have_found(search.count):
        return []
    best = search.then.best if search.then else 1
    return [trial.recipe for trial in ranked(trials.all(search.count), search.mode)[:best]]
