"""Turn a study file into a frozen Study, or raise one StudyError that lists all of its errors."""

import copy
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.config.errors import ErrorList, StudyError, suggestion, without_errors
from orchestrator.config.renamed_keys import rename_old_keys
from orchestrator.config.search_checks import check_searches
from orchestrator.config.study_checks import check_study
from orchestrator.config.study_schema import (
    MOST_RUNS,
    Stage,
    Study,
    StudyFile,
    Variant,
    Variants,
)
from orchestrator.config.yaml_loader import (
    BUILT_IN,
    Words,
    YamlError,
    apply_setting,
    find,
    read_file,
    values_at,
)
from orchestrator.own_code.study import settle
from trainables.schemas.producer import ProducerConfig
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS, own_metrics
from trainables.training_config import TrainableConfig

_AnyConfigClass = type[TrainableConfig] | type[ProducerConfig]
_PATHS = (
    "code",
    "data.*.path",
    "stages.*.weights",
    "stages.*.config.weights",
    "stages.*.grid.weights",
)


def read(study: str, settings: Sequence[str] = ()) -> Study:
    """Read a built-in study or a file and apply `--set KEY=VALUE`. Raises StudyError."""
    path = find(study)
    mapping = read_file(path)
    warnings = rename_old_keys(mapping)
    _resolve_paths(
        mapping, Path.cwd() if path.parent == BUILT_IN else Path(os.path.realpath(path)).parent
    )
    errors = ErrorList()
    for setting in settings:
        try:
            apply_setting(mapping, setting)
        except YamlError as error:
            errors.add("", str(error))
        warnings += rename_old_keys(mapping, override=True)  # one by one: the last setting wins
    _resolve_paths(mapping, Path.cwd())
    try:
        checked = from_mapping(mapping, path.name, Words(path, settings))
    except StudyError as error:
        raise StudyError(path.name, errors.lines + error.errors) from error
    if errors.lines:
        raise StudyError(path.name, errors.lines)
    return dataclasses.replace(checked, warnings=tuple(dict.fromkeys(warnings)))


def from_mapping(
    mapping: Mapping[str, Any], source: str = "study", words: Words | None = None
) -> Study:
    """Check a study that is already parsed. Raises StudyError with every error.

    source: what the error message calls it, such as its file's name; words: what the file says.
    """
    errors = ErrorList(words)
    present = copy.deepcopy(dict(mapping))
    warnings = rename_old_keys(present)
    if not settle(present, errors.add):
        raise StudyError(source, errors.lines)
    written = _long_form(present)
    file = errors.validate(StudyFile, written) or without_errors(StudyFile, written)
    variants = _read_variants(present.get("stages"), errors)
    if file is None:
        raise StudyError(source, errors.lines)
    file = _with_metric_of_producers(file)
    check_study(file, variants, errors)
    check_searches(file, variants, errors)
    if errors.lines:
        raise StudyError(source, errors.lines)
    study = _build(file, _with_watched_images(file, variants), present)
    return dataclasses.replace(study, warnings=tuple(warnings))


def _with_metric_of_producers(file: StudyFile) -> StudyFile:
    """Compare by what the first producer reports where nothing learns and no metric is written."""
    tasks = [stage.task for stage in file.stages.values()]
    if "metric" in file.compare.model_fields_set or not all(
        task in PRODUCER_SCHEMAS for task in tasks
    ):
        return file
    metric = PRODUCER_SCHEMAS[tasks[0]].FIGURES[0]
    return file.model_copy(update={"compare": file.compare.model_copy(update={"metric": metric})})


def _build(file: StudyFile, variants: Variants, mapping: Mapping[str, Any]) -> Study:
    """Return a study from a file without errors."""
    weight_files = file.weight_files()
    names = [name for name in file.parents_first() if name not in weight_files]
    stages = tuple(_stage(name, file, variants[name]) for name in names)
    return Study(
        name=file.study,
        question=file.question,
        data=file.data,
        resources=file.resources,
        stages=stages,
        compare=file.compared(),
        reference=file.reference,
        mapping=mapping,
        weight_files=weight_files,
        searches={stage.name: stage.search for stage in stages if stage.search},
        notify=file.notify,
        priority=file.priority,
        metrics=tuple(dict.fromkeys(m for stage in stages for m in own_metrics(stage.trainable))),
    )


def _stage(name: str, file: StudyFile, variants: tuple[Variant, ...]) -> Stage:
    """Return a stage as it is trained. Where its parent comes as a file, that file is its own
    weights."""
    stage, after = file.stages[name], file.stages[name].after
    path = file.weight_files().get(after or "")
    if path is not None:
        after, update = None, {"weights": path}
        variants = tuple(Variant(v.values, v.config.model_copy(update=update)) for v in variants)
    seeds, vary = file.seeds_of(name), file.vary
    resources = stage.resources.over(file.resources) if stage.resources else file.resources
    return Stage(name, stage.task, after, variants, seeds, stage.search, resources, vary)


def _long_form(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Write `data: {target: digits}` in full: `data: {target: {type: digits}}`."""
    data = mapping.get("data")
    if not isinstance(data, dict):
        return dict(mapping)
    full = {k: {"type": entry} if isinstance(entry, str) else entry for k, entry in data.items()}
    return {**mapping, "data": full}


def _resolve_paths(mapping: dict[str, Any], folder: Path) -> None:
    """Make data folders and weight files absolute, in place. A producer that names no file gets
    the default one's path."""
    for stage, key in values_at(mapping, "stages.*.producer"):
        if (
            isinstance(stage[key], str)
            and stage[key] in PRODUCER_SCHEMAS
            and isinstance(stage.setdefault("config", {}), dict)
        ):
            default = PRODUCER_SCHEMAS[stage[key]].default_weights(stage["config"])
            stage["config"].setdefault("weights", default)
    for pattern in _PATHS:
        for owner, key in values_at(mapping, pattern):
            if isinstance(owner[key], list):
                owner[key] = [_absolute(item, folder) for item in owner[key]]
            else:
                owner[key] = _absolute(owner[key], folder)


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or value in ("random", "imagenet"):
        return value
    return str(folder / os.path.expanduser(value))  # an unknown `~user` stays, as in a shell


def _read_variants(stages: Any, errors: ErrorList) -> dict[str, tuple[Variant, ...]]:
    """Return the configurations of every stage whose config and grid have no error.

    stages: what stands under `stages:`, unchecked.
    """
    variants = {}
    left = MOST_RUNS
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        for word, registry in (("trainable", TRAINABLE_SCHEMAS), ("producer", PRODUCER_SCHEMAS)):
            task = stage.get(word) if isinstance(stage, dict) else None
            if not isinstance(task, str):
                continue
            if task not in registry:
                message = f"no {word} {task!r}{suggestion(task, registry)}"
                errors.add(f"stages.{name}.{word}", message)
            elif _is_countable(str(name), stage, left, errors) and (
                points := _points(str(name), stage, registry[task].Config, errors)
            ):
                variants[str(name)] = points
                left -= len(points)
    return variants


def _is_countable(name: str, stage: Mapping[str, Any], left: int, errors: ErrorList) -> bool:
    """Return whether a stage's grid has no more points than may be built; counts, builds nothing.

    left: how many Runs the stages before it leave.
    """
    grid = stage.get("grid")
    lists = [v for v in grid.values() if isinstance(v, list)] if isinstance(grid, dict) else []
    count = math.prod(len(values) for values in lists)
    if count > left:
        product = " x ".join(str(len(values)) for values in lists)
        errors.add(
            f"stages.{name}.grid",
            f"has {product} = {count} points, and a study may have {MOST_RUNS} Runs at most: "
            "shorten its lists",
        )
    return count <= left


def _points(
    name: str, stage: Mapping[str, Any], model: _AnyConfigClass, errors: ErrorList
) -> tuple[Variant, ...]:
    """Return the points of a stage's grid, the last key changing fastest; none where one has an
    error."""
    config, grid = stage.get("config") or {}, stage.get("grid") or {}
    if not isinstance(config, dict) or not isinstance(grid, dict):
        return ()
    before = len(errors.lines)
    for key, values in grid.items():
        _check_grid_values(f"stages.{name}.grid.{key}", str(key), values, model, errors)
    if len(errors.lines) > before:
        grid = {}
    variants = []
    for point in itertools.product(*grid.values()):
        values = tuple(zip(grid, point, strict=True))
        point_errors = ErrorList(errors.written)
        whole = {**config, **dict(values)}
        checked = point_errors.validate(model, whole, f"stages.{name}.config")
        for line in point_errors.lines:
            key = line.removeprefix(f"stages.{name}.config.").split(":")[0]
            errors.add("", line.replace(".config.", ".grid.", 1) if key in grid else line)
        if checked is not None:
            variants.append(Variant(values, checked))
    return tuple(variants) if len(errors.lines) == before else ()


def _check_grid_values(
    dotted: str, key: str, values: Any, model: _AnyConfigClass, errors: ErrorList
) -> None:
    if key not in model.model_fields:
        errors.add(dotted, f"unknown key{suggestion(key, model.model_fields, 'keys')}")
    elif not isinstance(values, list) or not values:
        errors.add(dotted, f"must be a list with at least one value, not {values!r}")
    elif len({_comparable(value) for value in values}) < len(values):
        errors.add(dotted, f"lists a value twice: {values!r}")


def _comparable(value: Any) -> Any:
    """Return what equal values share, and what can stand in a set."""
    return repr(value) if isinstance(value, list | dict) else value


def _with_watched_images(file: StudyFile, variants: Variants) -> Variants:
    """Give producers that name no images the ones that the study's trainables watch."""
    watched: dict[str, dict[str, None]] = {}  # data set → names, in order
    for config in (point.config for points in variants.values() for point in points):
        if isinstance(config, TrainableConfig):
            names = dict.fromkeys(getattr(config, "watch", ()))
            watched.setdefault(config.dataset, {}).update(names)
    return {
        name: points
        if file.stages[name].producer is None
        else tuple(_watching(point, watched) for point in points)
        for name, points in variants.items()
    }


def _watching(point: Variant, watched: Mapping[str, Iterable[str]]) -> Variant:
    config = point.config
    if not isinstance(config, ProducerConfig) or config.images == "all" or config.watch:
        return point
    names = list(watched.get(config.dataset, ()))
    return Variant(point.values, config.model_copy(update={"watch": names}))
