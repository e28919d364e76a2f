"""Check the searches of a study before anything starts."""

import itertools
from collections.abc import Mapping, Sequence

from orchestrator.config.errors import ErrorList, near
from orchestrator.config.grid import gaps
from orchestrator.config.search_schema import (
    Search,
    check_axis,
    linked,
    owner_of,
)
from orchestrator.config.study_schema import CompareSpec, StudyFile, Variant
from trainables.data.datasets import DatasetConfig
from trainables.tasks.registry import TRAINABLES, reported_metrics
from trainables.training_config import CHANGEABLE, TrainableConfig

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


def check_searches(file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Add a fault for every search that could not be made."""
    for name, stage in file.stages.items():
        if stage.search is None or name not in variants or stage.task not in TRAINABLES:
            continue
        if stage.grid:
            errors.add(f"stages.{name}.grid", "it has a `search`: give its space a `choice`")
        if stage.seeds:
            errors.add(f"stages.{name}.seeds", "it has a `search`: say `then: {seeds: [...]}`")
        base = variants[name][0]
        assert isinstance(base.config, TrainableConfig)
        search, dotted = stage.search, f"stages.{name}.search"
        if _check_over(name, file, variants, errors):
            _check_space(name, search, variants, errors)
            _check_neighbours(name, file, variants, errors)
        if search.scheduler == "pbt":
            _check_population(dotted, search, base.config, errors)
        data = file.data.get(base.config.dataset)
        _check_metric(f"{dotted}.metric", search, stage.task, (base.config, data), errors)


def _check_space(name: str, search: Search, variants: Variants, errors: ErrorList) -> None:
    ahead = search.over[:-1]
    for key, axis in search.space.items():
        owner, parameter = owner_of(key)
        dotted = f"stages.{name}.search.space.{key}"
        if owner and owner not in ahead:
            told = near(owner, ahead) if ahead else " (the search is not `over` any)"
            errors.add(dotted, f"{owner!r} is no stage that is searched{told}")
            continue
        base = variants[owner or name][0].config
        assert isinstance(base, TrainableConfig)
        check_axis(dotted, axis, base, parameter, errors)
        if search.scheduler == "pbt" and parameter not in CHANGEABLE:
            can = ", ".join(CHANGEABLE)
            errors.add(dotted, f"pbt changes it on the way: only {can} can be changed so")


def _check_population(
    dotted: str, search: Search, config: TrainableConfig, errors: ErrorList
) -> None:
    if config.epochs <= search.interval_epochs:
        errors.add(
            f"{dotted}.interval_epochs",
            f"{search.interval_epochs} of {config.epochs} epochs: nobody would learn from anybody",
        )
    if config.changes:
        errors.add(dotted, "pbt finds the `changes` itself: leave them out of the config")


def _check_over(name: str, file: StudyFile, variants: Variants, errors: ErrorList) -> bool:
    """Whether the stages that are searched together are a chain, and nothing else of it varies."""
    search, dotted = file.stages[name].search, f"stages.{name}.search.over"
    assert search is not None
    if not search.over:
        return True
    missing = [other for other in search.over if other not in file.stages]
    for other in missing:
        errors.add(dotted, f"no stage {other!r}{near(other, file.stages, 'stages')}")
    if missing:
        return False
    before = len(errors.lines)
    _check_links(dotted, name, search.over, file, errors)
    for other in search.over[:-1]:
        _check_ahead(dotted, other, name, file, errors)
    if search.over[0] not in {owner_of(key)[0] for key in search.space}:
        errors.add(dotted, f"nothing of {search.over[0]!r} is searched: leave it out")
    if search.then and search.then.best > 1:
        errors.add(f"stages.{name}.search.then.best", "with `over` there is one winner: say 1")
    said = len(errors.lines) > before
    return not said and all(other in variants for other in search.over)


def _check_links(
    dotted: str, name: str, over: Sequence[str], file: StudyFile, errors: ErrorList
) -> None:
    if over[-1] != name or len(over) < 2:
        errors.add(dotted, f"names the stages that lead to {name!r}, and {name!r} last")
    for parent, child in itertools.pairwise(over):
        if file.stages[child].after != parent:
            errors.add(dotted, f"{child!r} does not start from {parent!r}")


def _check_ahead(dotted: str, other: str, name: str, file: StudyFile, errors: ErrorList) -> None:
    """Of a stage that is searched together with another one."""
    stage = file.stages[other]
    for what in ("search", "grid", "weights"):
        if getattr(stage, what):
            errors.add(dotted, f"{other!r} has a `{what}` of its own: it must be one configuration")
    if stage.producer is not None:
        errors.add(dotted, f"{other!r} makes artifacts: it learns nothing")
    if found_name(other, name) in file.stages:
        errors.add(f"stages.{found_name(other, name)}", f"is the name of what {name!r} finds")


def found_name(stage: str, searched: str) -> str:
    """The name of a stage as the search over it and another one has found it."""
    return f"{stage}_for_{searched}"


def _check_metric(
    dotted: str,
    search: Search,
    trainable: str,
    given: tuple[TrainableConfig, DatasetConfig | None],
    errors: ErrorList,
) -> None:
    names = [metric for metric in reported_metrics(trainable) if not metric.startswith("test/")]
    if search.metric.startswith("test/"):
        errors.add(dotted, f"{search.metric!r} is for the end: choose on validation data")
    elif search.metric not in names:
        errors.add(
            dotted, f"{trainable} does not report {search.metric!r}{near(search.metric, names)}"
        )
    elif said := gaps(search.metric, *given):
        errors.add(dotted, said)


def _check_neighbours(name: str, file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Of the stages around a searched one."""
    stage, dotted = file.stages[name], f"stages.{name}.search"
    search = stage.search
    assert search is not None
    children = [other for other, each in file.stages.items() if each.after == name]
    if children and search.then is None:
        errors.add(dotted, f"{children[0]!r} starts from what is found: say `then: {{best: 1}}`")
    if name + DEFAULT in file.stages:
        errors.add(f"stages.{name}{DEFAULT}", f"is the name of {name!r} as it is written")
    for key in linked(search) if children or stage.after else ():
        errors.add(
            f"{dotted}.space.{key}", "the stages around it must have the same: do not search"
        )
    first = search.over[0] if search.over else name
    after = file.stages[first].after
    parent = file.stages.get(after or "")
    if parent is None or after not in variants:
        return
    many = parent.search.then.best if parent.search and parent.search.then else 1
    if max(many, len(variants[str(after)])) > 1:
        errors.add(
            f"stages.{first}.after",
            f"a search starts from one configuration, and {after!r} has several",
        )
