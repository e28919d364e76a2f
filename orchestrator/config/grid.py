"""Configuration and grid of every stage → its variants, each with its whole configuration."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.config.errors import ErrorList, near
from orchestrator.config.study_schema import StudyFile, Variant
from trainables.data.datasets import DATASETS, DatasetConfig
from trainables.metrics import KNN, PROBES
from trainables.producer import ProducerConfig
from trainables.tasks.registry import PRODUCERS, TRAINABLES
from trainables.training_config import TrainableConfig

AnyForm = type[TrainableConfig] | type[ProducerConfig]


def read_variants(stages: Any, errors: ErrorList) -> dict[str, tuple[Variant, ...]]:
    """The variants of every stage that is without a fault in its config and grid."""
    found = {}
    for name, stage in stages.items() if isinstance(stages, dict) else ():
        for word, kinds in (("trainable", TRAINABLES), ("producer", PRODUCERS)):
            task = stage.get(word) if isinstance(stage, dict) else None
            if not isinstance(task, str):
                continue
            if task not in kinds:
                errors.add(f"stages.{name}.{word}", f"no {word} {task!r}{near(task, kinds)}")
            elif variants := _of_stage(str(name), stage, kinds[task].Config, errors):
                found[str(name)] = variants
    return found


def _of_stage(
    name: str, stage: Mapping[str, Any], model: AnyForm, errors: ErrorList
) -> tuple[Variant, ...]:
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
        found = ErrorList()
        checked = found.validate(model, {**config, **dict(values)}, f"stages.{name}.config")
        for line in found.lines:
            key = line.removeprefix(f"stages.{name}.config.").split(":")[0]
            errors.add("", line.replace(".config.", ".grid.", 1) if key in grid else line)
        if checked is not None:
            variants.append(Variant(values, checked))
    return tuple(variants) if len(errors.lines) == before else ()


def _check_grid_values(
    dotted: str, key: str, values: Any, model: AnyForm, errors: ErrorList
) -> None:
    if key not in model.model_fields:
        errors.add(dotted, f"unknown key{near(key, model.model_fields, 'keys')}")
    elif not isinstance(values, list) or not values:
        errors.add(dotted, f"must be a list with at least one value, not {values!r}")
    elif any(values.count(value) > 1 for value in values):
        errors.add(dotted, f"names a value twice: {values!r}")


def follow_watched(file: StudyFile, variants: dict[str, tuple[Variant, ...]]) -> None:
    """A producer that looks at what is watched looks at what the study's trainables watch."""
    watched: dict[str, dict[str, None]] = {}
    for config in (point.config for points in variants.values() for point in points):
        if isinstance(config, TrainableConfig):
            names = dict.fromkeys(getattr(config, "watch", ()))
            watched.setdefault(config.dataset, {}).update(names)
    for name, points in variants.items():
        if file.stages[name].producer is not None:
            variants[name] = tuple(_watching(point, watched) for point in points)


def _watching(point: Variant, watched: Mapping[str, Iterable[str]]) -> Variant:
    config = point.config
    if not isinstance(config, ProducerConfig) or config.images == "all" or config.watch:
        return point
    names = list(watched.get(config.dataset, ()))
    return Variant(point.values, config.model_copy(update={"watch": names}))


def gaps(metric: str, config: TrainableConfig, data: DatasetConfig | None) -> str:
    """Why a figure that a trainable reports is missing in some or all epochs of a Run; empty where
    it is not. data: what the configuration names, if it is known."""
    if metric in PROBES and getattr(config, "probe_every", 1) != 1:
        return f"{metric!r} is not reported every epoch: set `probe_every: 1`"
    if metric == KNN and data and (not data.labels or DATASETS[data.type].masked):
        return f"{metric!r} asks for labels of images, and {config.dataset!r} has none"
    return ""
