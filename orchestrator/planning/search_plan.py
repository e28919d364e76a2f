"""The searches of a study: whether they can be made, and the study once they have found."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.config.search_checks import DEFAULT, found_name, search_seed
from orchestrator.config.search_schema import Search, number_type, owner_of, values_of
from orchestrator.config.study_schema import CompareSpec, Stage, Study, Variant
from orchestrator.planning.run import Inputs, Run, make_run
from orchestrator.sampling.contract import SearchSpace
from orchestrator.sampling.dimension import Kind, typed
from trainables.config import as_plain
from trainables.training_config import TrainableConfig


def config_of(stage: Stage, values: Mapping[str, Any]) -> TrainableConfig:
    """A stage's configuration with values of its own. Raises pydantic's ValidationError."""
    base = stage.variants[0].config
    assert isinstance(base, TrainableConfig)
    model = type(base)
    given = {name: typed(number_type(model, name), value) for name, value in values.items()}
    return model.model_validate({**base.model_dump(), **given})


def resolved(study: Study, name: str, winners: Iterable[Mapping[str, Any]]) -> Study:
    """The study in which a search has found: its stage has the winners for variants, and beside it
    stands the stage as it is written. Before it stand those that were searched with it."""
    stages: list[Stage] = []
    compare = study.compare
    for stage in study.stages:
        if stage.name != name or stage.search is None:
            stages.append(stage)
            continue
        then = stage.search.then
        if then is None:
            continue
        written = chain_of(study, stage)
        found = _found(written, list(winners))
        stages += found
        new = [one.variants[0].config not in [v.config for v in other.variants]
               for one, other in zip(written, found, strict=True)]  # fmt: skip
        if then.default and any(new):
            stages.append(replace(stage, name=name + DEFAULT, search=None))
            compare = _beside(compare, name)
    return replace(study, stages=tuple(stages), compare=compare)


def _found(written: Sequence[Stage], winners: Sequence[Mapping[str, Any]]) -> list[Stage]:
    """The stages of a chain as a search has found them, each starting from the one before."""
    searched, after = written[-1], written[0].after
    found: list[Stage] = []
    for stage in written:
        own = stage is searched
        parts = [values_of(values, "" if own else stage.name) for values in winners]
        variants = tuple(Variant(_named(part), config_of(stage, part)) for part in parts)
        name = stage.name if own else found_name(stage.name, searched.name)
        found.append(Stage(name, stage.trainable, after, variants, searched.seeds))
        after = name
    return found


def _named(values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """By what a configuration is told from others; of changes on the way their number is enough."""
    return tuple((k, len(v) if k == "changes" else v) for k, v in values.items())


def chain_of(study: Study, stage: Stage) -> list[Stage]:
    """The stages that a trial of a searched one trains, it last."""
    over = stage.search.over if stage.search else ()
    return [next(s for s in study.stages if s.name == name) for name in over] or [stage]


def _beside(compare: CompareSpec, name: str) -> CompareSpec:
    listed = list(compare.stages or ())
    if name in listed:
        listed.insert(listed.index(name) + 1, name + DEFAULT)
    gains = [[name, name + DEFAULT], *compare.gains]
    return compare.model_copy(update={"stages": listed, "gains": gains})


@dataclass(frozen=True)
class PlannedSearch:
    """A search that can begin as soon as its parent is trained. `key` is the hash of all that
    decides what it finds but the number of trials: a longer one goes on where a shorter one ended.
    The number of those that learn from each other (pbt) decides, too.
    """

    stage: Stage
    search: Search
    seed: int
    parent: Run | None  # of the first stage that a trial trains
    key: str
    inputs: Inputs
    ahead: tuple[Stage, ...] = ()  # what a trial trains before `stage`, parents first

    @property
    def kinds(self) -> dict[str, Kind]:
        """What kind of number every parameter of the space is."""
        models = {
            "" if stage is self.stage else stage.name: type(config_of(stage, {}))
            for stage in (*self.ahead, self.stage)
        }
        owners = {name: owner_of(name) for name in self.search.space}
        return {name: number_type(models[owner], field) for name, (owner, field) in owners.items()}

    @property
    def space(self) -> SearchSpace:
        """What a sampler draws from."""
        return SearchSpace(self.search.space, self.kinds)

    def runs_of(self, values: Mapping[str, Any]) -> list[Run]:
        """The Runs of one trial, parents first: its own is the last. Raises ValidationError where
        values do not fit together."""
        runs: list[Run] = []
        for stage in (*self.ahead, self.stage):
            part = values_of(values, "" if stage is self.stage else stage.name)
            point = (tuple(part.items()), as_plain(config_of(stage, part)))
            parent = runs[-1] if runs else self.parent
            runs.append(make_run(stage, point, parent, self.seed, self.inputs))
        return runs

    def run_of(self, values: Mapping[str, Any]) -> Run:
        """The Run that a trial is judged by."""
        return self.runs_of(values)[-1]

    def config_of(self, values: Mapping[str, Any]) -> TrainableConfig:
        """That Run's configuration."""
        return config_of(self.stage, values_of(values, ""))


_NOT_DECIDING = {"trials", "then", "stall_minutes"}


def planned_searches(study: Study, inputs: Inputs, runs: Sequence[Run]) -> list[PlannedSearch]:
    """Searches that have not found yet, and whose parent is in the plan."""
    found = []
    for stage in study.stages:
        first, *_ = chain = chain_of(study, stage)
        if stage.search is None or first.after in pending(study):
            continue
        seed = search_seed(stage.search, stage.seeds)
        parents = [r for r in runs if r.stage == first.after and r.seed == seed]
        parent = parents[0] if parents else None
        ahead = tuple(chain[:-1])
        planned = PlannedSearch(stage, stage.search, seed, parent, "", inputs, ahead)
        exclude = _NOT_DECIDING - ({"trials"} if stage.search.scheduler == "pbt" else set())
        asked = stage.search.model_dump(mode="json", exclude=exclude)
        text = json.dumps([planned.run_of({}).key, asked], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:20]
        found.append(replace(planned, key=key))
    return found


def pending(study: Study) -> list[str]:
    """Stages without Runs as yet: those to be searched, and all that start from them."""
    found: list[str] = []
    for stage in study.stages:  # parents first
        if stage.search is not None or stage.after in found:
            found.append(stage.name)
    return found
