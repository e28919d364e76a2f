"""The searches of a study: whether they can be made, and the study once they have found."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.faults import Faults, near
from orchestrator.plan import Inputs, Run, make_run
from orchestrator.search_file import (
    Kind,
    Search,
    check_axis,
    linked,
    number_type,
    owner_of,
    typed,
    values_of,
)
from orchestrator.study_file import CompareSpec, Stage, Study, StudyFile, Variant
from orchestrator.variants import gaps
from trainables.catalog import TRAINABLES, reported_metrics
from trainables.config import CHANGEABLE, TrainableConfig, as_plain
from trainables.datasets import DatasetConfig

DEFAULT = "_default"  # ends the name of the stage that is trained as it is written
Variants = Mapping[str, tuple[Variant, ...]]


def seeds_of(file: StudyFile, name: str) -> tuple[int, ...]:
    """Seeds of a stage's Runs; of a searched stage those that follow its search."""
    stage = file.stages[name]
    if stage.producer is not None:  # nothing in it is drawn
        return (file.seeds[0],)
    then = stage.search.then if stage.search else None
    given = then.seeds if then else stage.seeds
    return tuple(file.seeds if given is None else given)


def wanted_seeds(file: StudyFile, name: str) -> set[int]:
    """Seeds that a stage needs its parent to have."""
    search = file.stages[name].search
    wanted = set(seeds_of(file, name)) if search is None or search.then else set[int]()
    return wanted | ({search_seed(search, seeds_of(file, name))} if search else set())


def search_seed(search: Search, seeds: tuple[int, ...]) -> int:
    """Of every trial, and of what is drawn. seeds: of the searched stage."""
    return seeds[0] if search.seed is None else search.seed


def compared(file: StudyFile) -> CompareSpec:
    """What is compared: the stages that are named, else those that no other one starts from, and
    what a search has found."""
    if file.compare.stages:
        return file.compare
    parents = {stage.after for stage in file.stages.values()}
    found = [name for name, s in file.stages.items() if name not in parents or s.search]
    return file.compare.model_copy(update={"stages": found})


def check_searches(file: StudyFile, variants: Variants, faults: Faults) -> None:
    """Add a fault for every search that could not be made."""
    for name, stage in file.stages.items():
        if stage.search is None or name not in variants or stage.task not in TRAINABLES:
            continue
        if stage.grid:
            faults.add(f"stages.{name}.grid", "it has a `search`: give its space a `choice`")
        if stage.seeds:
            faults.add(f"stages.{name}.seeds", "it has a `search`: say `then: {seeds: [...]}`")
        base = variants[name][0]
        assert isinstance(base.config, TrainableConfig)
        search, dotted = stage.search, f"stages.{name}.search"
        if _check_over(name, file, variants, faults):
            _check_space(name, search, variants, faults)
            _check_neighbours(name, file, variants, faults)
        if search.scheduler == "pbt":
            _check_population(dotted, search, base.config, faults)
        data = file.data.get(base.config.dataset)
        _check_metric(f"{dotted}.metric", search, stage.task, (base.config, data), faults)


def _check_space(name: str, search: Search, variants: Variants, faults: Faults) -> None:
    ahead = search.over[:-1]
    for key, axis in search.space.items():
        owner, parameter = owner_of(key)
        dotted = f"stages.{name}.search.space.{key}"
        if owner and owner not in ahead:
            told = near(owner, ahead) if ahead else " (the search is not `over` any)"
            faults.add(dotted, f"{owner!r} is no stage that is searched{told}")
            continue
        base = variants[owner or name][0].config
        assert isinstance(base, TrainableConfig)
        check_axis(dotted, axis, base, parameter, faults)
        if search.scheduler == "pbt" and parameter not in CHANGEABLE:
            can = ", ".join(CHANGEABLE)
            faults.add(dotted, f"pbt changes it on the way: only {can} can be changed so")


def _check_population(dotted: str, search: Search, config: TrainableConfig, faults: Faults) -> None:
    if config.epochs <= search.interval_epochs:
        faults.add(
            f"{dotted}.interval_epochs",
            f"{search.interval_epochs} of {config.epochs} epochs: nobody would learn from anybody",
        )
    if config.changes:
        faults.add(dotted, "pbt finds the `changes` itself: leave them out of the config")


def _check_over(name: str, file: StudyFile, variants: Variants, faults: Faults) -> bool:
    """Whether the stages that are searched together are a chain, and nothing else of it varies."""
    search, dotted = file.stages[name].search, f"stages.{name}.search.over"
    assert search is not None
    if not search.over:
        return True
    missing = [other for other in search.over if other not in file.stages]
    for other in missing:
        faults.add(dotted, f"no stage {other!r}{near(other, file.stages, 'stages')}")
    if missing:
        return False
    before = len(faults.lines)
    _check_links(dotted, name, search.over, file, faults)
    for other in search.over[:-1]:
        _check_ahead(dotted, other, name, file, faults)
    if search.over[0] not in {owner_of(key)[0] for key in search.space}:
        faults.add(dotted, f"nothing of {search.over[0]!r} is searched: leave it out")
    if search.then and search.then.best > 1:
        faults.add(f"stages.{name}.search.then.best", "with `over` there is one winner: say 1")
    said = len(faults.lines) > before
    return not said and all(other in variants for other in search.over)


def _check_links(
    dotted: str, name: str, over: Sequence[str], file: StudyFile, faults: Faults
) -> None:
    if over[-1] != name or len(over) < 2:
        faults.add(dotted, f"names the stages that lead to {name!r}, and {name!r} last")
    for parent, child in itertools.pairwise(over):
        if file.stages[child].after != parent:
            faults.add(dotted, f"{child!r} does not start from {parent!r}")


def _check_ahead(dotted: str, other: str, name: str, file: StudyFile, faults: Faults) -> None:
    """Of a stage that is searched together with another one."""
    stage = file.stages[other]
    for what in ("search", "grid", "weights"):
        if getattr(stage, what):
            faults.add(dotted, f"{other!r} has a `{what}` of its own: it must be one configuration")
    if stage.producer is not None:
        faults.add(dotted, f"{other!r} makes artifacts: it learns nothing")
    if found_name(other, name) in file.stages:
        faults.add(f"stages.{found_name(other, name)}", f"is the name of what {name!r} finds")


def found_name(stage: str, searched: str) -> str:
    """The name of a stage as the search over it and another one has found it."""
    return f"{stage}_for_{searched}"


def _check_metric(
    dotted: str,
    search: Search,
    trainable: str,
    given: tuple[TrainableConfig, DatasetConfig | None],
    faults: Faults,
) -> None:
    names = [metric for metric in reported_metrics(trainable) if not metric.startswith("test/")]
    if search.metric.startswith("test/"):
        faults.add(dotted, f"{search.metric!r} is for the end: choose on validation data")
    elif search.metric not in names:
        faults.add(
            dotted, f"{trainable} does not report {search.metric!r}{near(search.metric, names)}"
        )
    elif said := gaps(search.metric, *given):
        faults.add(dotted, said)


def _check_neighbours(name: str, file: StudyFile, variants: Variants, faults: Faults) -> None:
    """Of the stages around a searched one."""
    stage, dotted = file.stages[name], f"stages.{name}.search"
    search = stage.search
    assert search is not None
    children = [other for other, each in file.stages.items() if each.after == name]
    if children and search.then is None:
        faults.add(dotted, f"{children[0]!r} starts from what is found: say `then: {{best: 1}}`")
    if name + DEFAULT in file.stages:
        faults.add(f"stages.{name}{DEFAULT}", f"is the name of {name!r} as it is written")
    for key in linked(search) if children or stage.after else ():
        faults.add(
            f"{dotted}.space.{key}", "the stages around it must have the same: do not search"
        )
    first = search.over[0] if search.over else name
    after = file.stages[first].after
    parent = file.stages.get(after or "")
    if parent is None or after not in variants:
        return
    many = parent.search.then.best if parent.search and parent.search.then else 1
    if max(many, len(variants[str(after)])) > 1:
        faults.add(
            f"stages.{first}.after",
            f"a search starts from one configuration, and {after!r} has several",
        )


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
