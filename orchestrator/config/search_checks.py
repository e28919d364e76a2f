"""Check the searches of a study before anything starts."""

import itertools
from collections.abc import Sequence

from orchestrator.config.errors import ErrorList, suggestion
from orchestrator.config.search_schema import (
    DEFAULT,
    Search,
    check_axis,
    found_name,
    owner_of,
)
from orchestrator.config.study_checks import LINKED, missing_in_some_epochs
from orchestrator.config.study_schema import StudyFile, Variants
from trainables.data.datasets import DatasetConfig
from trainables.schemas.registry import TRAINABLE_SCHEMAS, reported_metrics
from trainables.training_config import CHANGEABLE, TrainableConfig


def check_searches(file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Add an error for every search that cannot be made."""
    for name, stage in file.stages.items():
        if stage.search is None or name not in variants or stage.task not in TRAINABLE_SCHEMAS:
            continue
        if stage.grid:
            errors.add(
                f"stages.{name}.grid",
                "a stage with a `search` has no grid: write `choice: [...]` into its space",
            )
        if stage.seeds:
            errors.add(
                f"stages.{name}.seeds",
                "a stage with a `search` has no seeds: write `then: {seeds: [...]}` in it",
            )
        written = _written(variants[name][0].config)
        search, dotted = stage.search, f"stages.{name}.search"
        if _check_over(name, file, variants, errors):
            _check_space(name, search, variants, errors)
            _check_neighbors(name, file, variants, errors)
        if search.scheduler == "pbt":
            _check_population(dotted, search, written, errors)
        data = file.data.get(written.dataset)
        _check_metric(f"{dotted}.metric", search, stage.task, (written, data), errors)


def _written(config: object) -> TrainableConfig:
    """Return the configuration of a trainable: only these are searched."""
    assert isinstance(config, TrainableConfig)
    return config


def _check_space(name: str, search: Search, variants: Variants, errors: ErrorList) -> None:
    upstream = search.over[:-1]
    for key, axis in search.space.items():
        owner, parameter = owner_of(key)
        dotted = f"stages.{name}.search.space.{key}"
        if owner and owner not in upstream:
            advice = suggestion(owner, upstream) if upstream else ": name it in `over`"
            errors.add(dotted, f"{owner!r} is not searched together with {name!r}{advice}")
            continue
        written = _written(variants[owner or name][0].config)
        check_axis(dotted, axis, written, parameter, errors)
        if search.scheduler == "pbt" and parameter not in CHANGEABLE:
            names = ", ".join(CHANGEABLE)
            errors.add(dotted, f"pbt changes values during training, possible for {names} only")


def _check_population(
    dotted: str, search: Search, config: TrainableConfig, errors: ErrorList
) -> None:
    if config.epochs <= search.interval_epochs:
        errors.add(
            f"{dotted}.interval_epochs",
            "interval_epochs must be smaller than epochs, else PBT never exploits "
            f"(interval_epochs {search.interval_epochs}, epochs {config.epochs})",
        )
    if config.changes:
        errors.add(dotted, "pbt finds the `changes` itself: remove them from the config")


def _check_over(name: str, file: StudyFile, variants: Variants, errors: ErrorList) -> bool:
    """Check that the stages of `over` are a chain of single configurations. Returns whether they
    are."""
    search, dotted = file.stages[name].search, f"stages.{name}.search.over"
    assert search is not None
    if not search.over:
        return True
    unknown = [other for other in search.over if other not in file.stages]
    for other in unknown:
        errors.add(dotted, f"no stage {other!r}{suggestion(other, file.stages, 'stages')}")
    if unknown:
        return False
    before = len(errors.lines)
    _check_links(dotted, name, search.over, file, errors)
    for other in search.over[:-1]:
        _check_upstream(dotted, other, name, file, errors)
    if search.over[0] not in {owner_of(key)[0] for key in search.space}:
        errors.add(dotted, f"no parameter of {search.over[0]!r} is in the space: remove it here")
    if search.then and search.then.best > 1:
        errors.add(f"stages.{name}.search.then.best", "a search with `over` has one winner: set 1")
    has_errors = len(errors.lines) > before
    return not has_errors and all(other in variants for other in search.over)


def _check_links(
    dotted: str, name: str, over: Sequence[str], file: StudyFile, errors: ErrorList
) -> None:
    if over[-1] != name or len(over) < 2:
        errors.add(dotted, f"must list the stages that lead to {name!r}, and {name!r} last")
    for parent, child in itertools.pairwise(over):
        if file.stages[child].after != parent:
            errors.add(dotted, f"{child!r} does not start from {parent!r}")


def _check_upstream(dotted: str, other: str, name: str, file: StudyFile, errors: ErrorList) -> None:
    """Check a stage that is searched together with one that starts from it."""
    stage = file.stages[other]
    for key in ("search", "grid", "weights"):
        if getattr(stage, key):
            errors.add(dotted, f"{other!r} has its own `{key}`: it must be one configuration")
    if stage.producer is not None:
        errors.add(dotted, f"{other!r} is a producer: it does not learn")
    if found_name(other, name) in file.stages:
        errors.add(
            f"stages.{found_name(other, name)}",
            f"this name is reserved for the result of the search of {name!r}: choose another",
        )


def _check_metric(
    dotted: str,
    search: Search,
    trainable: str,
    written: tuple[TrainableConfig, DatasetConfig | None],
    errors: ErrorList,
) -> None:
    names = [metric for metric in reported_metrics(trainable) if not metric.startswith("test/")]
    metric = search.metric
    if metric.startswith("test/"):
        errors.add(dotted, f"{metric!r} is for the final comparison: choose on validation data")
    elif metric not in names:
        errors.add(dotted, f"{trainable} does not report {metric!r}{suggestion(metric, names)}")
    elif reason := missing_in_some_epochs(metric, *written):
        errors.add(dotted, reason)


def _check_neighbors(name: str, file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Check the stages that a searched one starts from, and those that start from it."""
    stage, dotted = file.stages[name], f"stages.{name}.search"
    search = stage.search
    assert search is not None
    children = [child for child, other in file.stages.items() if other.after == name]
    if children and search.then is None:
        errors.add(
            dotted, f"{children[0]!r} starts from the search's winner: set `then: {{best: 1}}`"
        )
    if name + DEFAULT in file.stages:
        errors.add(
            f"stages.{name}{DEFAULT}",
            f"this name is reserved for {name!r} as it is written: choose another",
        )
    for key in _linked(search) if children or stage.after else ():
        errors.add(
            f"{dotted}.space.{key}",
            "parent and child stages must have the same, so that weights fit: do not search it",
        )
    _check_one_start(search.over[0] if search.over else name, file, variants, errors)


def _check_one_start(first: str, file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Check that the first stage of a trial has no more than one configuration to start from."""
    after = file.stages[first].after
    parent = file.stages.get(after or "")
    if parent is None or after not in variants:
        return
    winners = parent.search.then.best if parent.search and parent.search.then else 1
    if max(winners, len(variants[str(after)])) > 1:
        errors.add(
            f"stages.{first}.after",
            f"a search starts from one configuration, and {after!r} has several",
        )


def _linked(search: Search) -> list[str]:
    """Return the keys of the space that a parent and a child must share."""
    return [key for key in search.space if owner_of(key)[1] in LINKED]
