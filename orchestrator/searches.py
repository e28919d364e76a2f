"""The searches of a study: whether they can be made, and the study once they have found."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.faults import Faults, near
from orchestrator.plan import Inputs, Run, make_run
from orchestrator.search_file import Search, check_space, linked, typed
from orchestrator.study_file import CompareSpec, Stage, Study, StudyFile, Variant
from trainables.catalog import TRAINABLES, reported_metrics
from trainables.config import TrainableConfig, as_plain
from trainables.trainable import PROBES

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
        search, model = stage.search, TRAINABLES[stage.task].Config
        check_space(f"stages.{name}", search, model, base.config.model_dump(), faults)
        _check_metric(f"stages.{name}.search.metric", search, stage.task, base.config, faults)
        _check_neighbours(name, file, variants, faults)


def _check_metric(
    dotted: str, search: Search, trainable: str, config: TrainableConfig, faults: Faults
) -> None:
    names = [metric for metric in reported_metrics(trainable) if not metric.startswith("test/")]
    if search.metric.startswith("test/"):
        faults.add(dotted, f"{search.metric!r} is for the end: choose on validation data")
    elif search.metric not in names:
        faults.add(
            dotted, f"{trainable} does not report {search.metric!r}{near(search.metric, names)}"
        )
    elif search.metric in PROBES and getattr(config, "probe_every", 1) != 1:
        faults.add(dotted, f"{search.metric!r} is not reported every epoch: set `probe_every: 1`")


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
    parent = file.stages.get(stage.after or "")
    if parent is None or stage.after not in variants:
        return
    many = parent.search.then.best if parent.search and parent.search.then else 1
    if max(many, len(variants[str(stage.after)])) > 1:
        faults.add(
            f"stages.{name}.after",
            f"a search starts from one configuration, and {stage.after!r} has several",
        )


def config_of(stage: Stage, values: Mapping[str, Any]) -> TrainableConfig:
    """The configuration of a searched stage with some values. Raises pydantic's ValidationError."""
    base = stage.variants[0].config
    assert isinstance(base, TrainableConfig)
    model = type(base)
    given = {name: typed(model, name, value) for name, value in values.items()}
    return model.model_validate({**base.model_dump(), **given})


def resolved(study: Study, name: str, winners: Iterable[Mapping[str, Any]]) -> Study:
    """The study in which a search has found: its stage has the winners for variants, and beside it
    stands the stage as it is written."""
    stages: list[Stage] = []
    compare = study.compare
    for stage in study.stages:
        if stage.name != name or stage.search is None:
            stages.append(stage)
            continue
        variants = [Variant(tuple(v.items()), config_of(stage, v)) for v in winners]
        then = stage.search.then
        if then is None:
            continue
        stages.append(replace(stage, variants=tuple(variants), search=None))
        default = stage.variants[0]
        if then.default and default.config not in [variant.config for variant in variants]:
            stages.append(replace(stage, name=name + DEFAULT, search=None))
            compare = _beside(compare, name)
    return replace(study, stages=tuple(stages), compare=compare)


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
    """

    stage: Stage
    search: Search
    seed: int
    parent: Run | None
    key: str
    inputs: Inputs

    @property
    def dataset(self) -> str:
        """Fingerprint of what every trial learns from."""
        return self.inputs.fingerprints[self.stage.variants[0].config.dataset]

    def run_of(self, values: Mapping[str, Any]) -> Run:
        """The Run of one trial. Raises ValidationError where values do not fit together."""
        config = as_plain(config_of(self.stage, values))
        point = (tuple(values.items()), config)
        return make_run(self.stage, point, self.parent, self.seed, self.inputs)


_NOT_DECIDING = {"trials", "then", "stall_minutes"}


def planned_searches(study: Study, inputs: Inputs, runs: Sequence[Run]) -> list[PlannedSearch]:
    """Searches that have not found yet, and whose parent is in the plan."""
    found = []
    for stage in study.stages:
        if stage.search is None or stage.after in pending(study):
            continue
        seed = search_seed(stage.search, stage.seeds)
        parents = [r for r in runs if r.stage == stage.after and r.seed == seed]
        parent = parents[0] if parents else None
        planned = PlannedSearch(stage, stage.search, seed, parent, "", inputs)
        asked = stage.search.model_dump(mode="json", exclude=_NOT_DECIDING)
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
