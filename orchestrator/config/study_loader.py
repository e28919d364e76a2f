"""YAML → frozen Study. Every error a user can make in a study is raised here, all at once."""

import copy
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.errors import ErrorList, StudyError, near, without_errors
from orchestrator.config.grid import follow_watched, gaps, read_variants
from orchestrator.config.search_checks import check_searches, compared, seeds_of, wanted_seeds
from orchestrator.config.study_schema import NAME, Stage, Study, StudyFile, Variant
from orchestrator.config.yaml_loader import (
    BUILT_IN,
    YamlError,
    apply_setting,
    find,
    read_file,
    values_at,
)
from trainables.data.datasets import DATASETS
from trainables.tasks.registry import PRODUCERS, TRAINABLES, reported_metrics
from trainables.training_config import TrainableConfig


def read(study: str, settings: Iterable[str] = ()) -> Study:
    """Read a built-in study or a file and apply `--set KEY=VALUE`. Raises StudyError."""
    path = find(study)
    mapping = read_file(path)
    _resolve_paths(mapping, Path.cwd() if path.parent == BUILT_IN else path.resolve().parent)
    errors = ErrorList()
    for setting in settings:
        try:
            apply_setting(mapping, setting)
        except YamlError as fault:
            errors.add("", str(fault))
    _resolve_paths(mapping, Path.cwd())
    try:
        study_read = from_mapping(mapping, path.name)
    except StudyError as error:
        raise StudyError(path.name, errors.lines + error.errors) from error
    if errors.lines:
        raise StudyError(path.name, errors.lines)
    return study_read


def from_mapping(mapping: Mapping[str, Any], source: str = "study") -> Study:
    """Check a study that is already parsed. Raises StudyError with every fault."""
    errors = ErrorList()
    written = _long_form(mapping)
    file = errors.validate(StudyFile, written) or without_errors(StudyFile, written)
    variants = read_variants(mapping.get("stages"), errors)
    if file is None:
        raise StudyError(source, errors.lines)
    _check_names(file, errors)
    order = _check_after(file, variants, errors)
    given = _check_given(file, errors)
    _check_seeds(file, errors)
    _check_compare(file, errors)
    _check_variants(file, variants, errors)
    check_searches(file, variants, errors)
    if errors.lines:
        raise StudyError(source, errors.lines)
    follow_watched(file, variants)
    stages = tuple(_stage(name, file, variants[name], given) for name in order if name not in given)
    return Study(
        name=file.study,
        question=file.question,
        data=file.data,
        resources=file.resources,
        stages=stages,
        compare=compared(file),
        reference=file.reference,
        mapping=copy.deepcopy(dict(mapping)),
        given=given,
        searches={stage.name: stage.search for stage in stages if stage.search},
    )


def _stage(
    name: str, file: StudyFile, variants: tuple[Variant, ...], given: Mapping[str, str]
) -> Stage:
    """A stage as it is trained: a parent that comes as a file is its own initial weights."""
    stage = file.stages[name]
    path = given.get(stage.after or "")
    if path is None:
        return Stage(name, stage.task, stage.after, variants, seeds_of(file, name), stage.search)
    loaded = tuple(
        Variant(v.values, v.config.model_copy(update={"weights": path})) for v in variants
    )
    return Stage(name, stage.task, None, loaded, seeds_of(file, name), stage.search)


def _long_form(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """`data: {target: digits}` is short for `data: {target: {type: digits}}`."""
    data = mapping.get("data")
    if not isinstance(data, dict):
        return dict(mapping)
    long = {k: {"type": entry} if isinstance(entry, str) else entry for k, entry in data.items()}
    return {**mapping, "data": long}


def _resolve_paths(mapping: dict[str, Any], folder: Path) -> None:
    """Make data folders and weight files absolute, in place; a producer's file also where it is not
    named."""
    for stage, key in values_at(mapping, "stages.*.producer"):
        if stage[key] in PRODUCERS and isinstance(stage.setdefault("config", {}), dict):
            default = PRODUCERS[stage[key]].default_weights(stage["config"])
            stage["config"].setdefault("weights", default)
    weights = ("stages.*.weights", "stages.*.config.weights", "stages.*.grid.weights")
    for pattern in ("data.*.path", *weights):
        for owner, key in values_at(mapping, pattern):
            if isinstance(owner[key], list):
                owner[key] = [_absolute(item, folder) for item in owner[key]]
            else:
                owner[key] = _absolute(owner[key], folder)


def _absolute(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or value in ("random", "imagenet"):
        return value
    return str(folder / Path(value).expanduser())


def _check_names(file: StudyFile, errors: ErrorList) -> None:
    named = [("study", file.study), *((f"stages.{name}", name) for name in file.stages)]
    named += [(f"data.{name}", name) for name in file.data]
    for key, name in named:
        if not NAME.fullmatch(name):
            errors.add(key, f"name {name!r} may hold letters, digits, '_' and '-', 64 at most")


def _check_after(
    file: StudyFile, variants: Mapping[str, tuple[Variant, ...]], errors: ErrorList
) -> list[str]:
    """Stage names, parents first."""
    parents = {name: stage.after for name, stage in file.stages.items()}
    for name, after in parents.items():
        if after is not None and after not in parents:
            errors.add(
                f"stages.{name}.after", f"no stage {after!r}{near(after, parents, 'stages')}"
            )
        elif after is not None and after in variants and name in variants:
            _check_weight_transfer(name, after, variants, errors)
    order: list[str] = []
    for name in parents:
        chain = _ancestry(name, parents)
        if chain[0] in chain[1:]:
            circle = chain[: chain.index(chain[0], 1) + 1]
            errors.add("stages", f"`after` goes in a circle: {' → '.join(circle)}")
            return []
        order += [item for item in chain if item not in order]
    return order


def _ancestry(name: str, parents: Mapping[str, str | None]) -> list[str]:
    """A stage's ancestors, the eldest first, then itself; in a circle its first comes again."""
    chain = [name]
    while (parent := parents.get(chain[0])) in parents:
        assert parent is not None
        chain.insert(0, parent)
        if parent in chain[1:]:
            break
    return chain


def _check_weight_transfer(
    name: str, after: str, variants: Mapping[str, tuple[Variant, ...]], errors: ErrorList
) -> None:
    if not isinstance(variants[after][0].config, TrainableConfig):
        errors.add(f"stages.{name}.after", f"{after!r} makes artifacts: there are no weights")
        return
    for child, parent in itertools.product(variants[name], variants[after]):
        if child.config.weights != "random":
            errors.add(
                f"stages.{name}.config.weights",
                f"is {child.config.weights!r}, but the stage starts from {after!r}: leave one out",
            )
        for key in ("backbone", "stem"):
            mine, theirs = getattr(child.config, key), getattr(parent.config, key)
            if mine != theirs:
                errors.add(
                    f"stages.{name}.config.{key}",
                    f"is {mine!r}, but its parent {after!r} has {theirs!r}, and weights must fit: "
                    f"give both the same",
                )


def _check_given(file: StudyFile, errors: ErrorList) -> dict[str, str]:
    """Stages whose weights come as a file instead of being trained → the file."""
    given = {name: stage.weights for name, stage in file.stages.items() if stage.weights}
    for name, path in given.items():
        if not Path(path).is_file():
            errors.add(f"stages.{name}.weights", f"there is no file {path}")
        if not any(stage.after == name for stage in file.stages.values()):
            errors.add(
                f"stages.{name}.weights",
                f"replaces the training of {name!r}, from which no stage starts",
            )
    return given


def _check_seeds(file: StudyFile, errors: ErrorList) -> None:
    given = [("seeds", file.seeds)]
    given += [(f"stages.{name}.seeds", s.seeds) for name, s in file.stages.items() if s.seeds]
    for key, seeds in given:
        if len(set(seeds)) < len(seeds):
            errors.add(key, f"a seed stands twice: {seeds}")
    for name, stage in file.stages.items():
        if stage.after in file.stages:
            missing = wanted_seeds(file, name) - set(seeds_of(file, stage.after))
            if missing:
                errors.add(
                    f"stages.{name}.seeds",
                    f"a Run of seed s starts from its parent's of seed s, "
                    f"but {stage.after!r} has no seed {sorted(missing)[0]}",
                )


def _check_compare(file: StudyFile, errors: ErrorList) -> None:
    for name in file.compare.stages or ():
        if name not in file.stages:
            errors.add("compare.stages", f"no stage {name!r}{near(name, file.stages, 'stages')}")
    _check_gains(file, errors)
    known = TRAINABLES.keys() | PRODUCERS.keys()
    used = {stage.task for stage in file.stages.values()} & known
    metrics = sorted({metric for name in used for metric in reported_metrics(name)})
    # which classes there are is known where the data is
    part, _, of_class = file.compare.metric.partition("/iou/")
    asked = f"{part}/miou" if of_class else file.compare.metric
    if used and asked not in metrics:
        errors.add(
            "compare.metric",
            f"no stage reports {file.compare.metric!r}{near(file.compare.metric, metrics)}",
        )
    for name in file.reference:
        if name.split("[")[0] not in file.stages:
            errors.add(f"reference.{name}", f"no stage {name!r}{near(name, file.stages, 'stages')}")


def _check_gains(file: StudyFile, errors: ErrorList) -> None:
    """Only figures that stand in one table have a difference."""
    shown = compared(file).stages or ()
    for index, pair in enumerate(file.compare.gains):
        key = f"compare.gains[{index}]"
        missing = [name for name in pair if name not in file.stages]
        hidden = [name for name in pair if name not in shown]
        for name in missing:
            errors.add(key, f"no stage {name!r}{near(name, file.stages, 'stages')}")
        if missing:
            continue
        one, other = (file.stages[name] for name in pair)
        if pair[0] == pair[1]:
            errors.add(key, f"{pair[0]!r} is compared with itself")
        elif hidden:
            errors.add(key, f"{hidden[0]!r} is not compared: name it in compare.stages")
        elif one.task != other.task or one.config.get("dataset") != other.config.get("dataset"):
            errors.add(key, f"{pair[0]!r} and {pair[1]!r} learn other things, or from other data")


def _check_variants(
    file: StudyFile, variants: Mapping[str, tuple[Variant, ...]], errors: ErrorList
) -> None:
    for name, points in variants.items():
        if name not in file.stages:
            continue  # a fault of its form is said already
        for config in (point.config for point in points):
            key = f"stages.{name}.config"
            known = config.dataset in file.data
            if not known:
                errors.add(
                    f"{key}.dataset", f"no data {config.dataset!r}{near(config.dataset, file.data)}"
                )
            if isinstance(config, TrainableConfig):
                _check_training(key, config, file, name, errors)
                if known and not file.stages[name].weights:  # else it learns nothing
                    _check_needs(f"{key}.dataset", file, name, config.dataset, errors)
                continue
            try:
                PRODUCERS[file.stages[name].task].check(config)
            except ValueError as error:
                errors.add(f"{key}.weights", str(error))


def _check_training(
    key: str, config: TrainableConfig, file: StudyFile, name: str, errors: ErrorList
) -> None:
    stop, metrics = config.early_stopping, reported_metrics(file.stages[name].task)
    allowed = [metric for metric in metrics if not metric.startswith("test/")]
    if stop is not None and stop.metric not in allowed:
        errors.add(
            f"{key}.early_stopping.metric",
            f"{stop.metric!r} is not reported every epoch{near(stop.metric, allowed)}",
        )
    elif stop and (said := gaps(stop.metric, config, file.data.get(config.dataset))):
        errors.add(f"{key}.early_stopping.metric", said)
    if config.weights not in ("random", "imagenet") and not Path(config.weights).is_file():
        errors.add(f"{key}.weights", f"there is no file {config.weights}")


def _check_needs(dotted: str, file: StudyFile, stage: str, dataset: str, errors: ErrorList) -> None:
    """Whether a data set has what a trainable learns from."""
    trainable, data = file.stages[stage].task, file.data[dataset]
    needs, masked = TRAINABLES[trainable].NEEDS, DATASETS[data.type].masked
    has = None if not data.labels else "masks" if masked else "labels"
    if needs is None or needs == has:
        return
    others = " or ".join(name for name, kind in TRAINABLES.items() if kind.NEEDS is None)
    if needs == "masks":
        kinds = ", ".join(name for name, kind in DATASETS.items() if kind.masked)
        cure = f"give it a data set with masks ({kinds})"
    else:
        cure = f"give it class folders, or train {others} on it"
    what = "`labels: false`" if not data.labels else f"type {data.type}, whose images have {has}"
    errors.add(dotted, f"{dataset!r} has {what}, and {trainable} learns from {needs}: {cure}")
