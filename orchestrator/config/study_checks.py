"""Check a study whose form is right: names, parents, seeds, comparison, configurations."""

import itertools
import os
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from orchestrator.config.errors import ErrorList, suggestion
from orchestrator.config.study_schema import MOST_RUNS, NAME, Seeds, StudyFile, Variants
from trainables.data.datasets import DATASETS, DatasetConfig
from trainables.metrics import KNN, LINEAR, OF_PARTS, OF_PREDICTIONS
from trainables.schemas.producer import ProducerConfig
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS, reported_metrics
from trainables.training_config import TrainableConfig

LINKED = ("backbone", "small_input")  # a stage and its parent must have the same
_NAMED_WEIGHTS = ("random", "imagenet")  # `weights` that are no file


def check_study(file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Add an error for everything in the study that does not fit together, except its searches."""
    _check_names(file, errors)
    _check_parents(file, variants, errors)
    _check_weight_files(file, errors)
    _check_seeds(file, errors)
    _check_resources(file, errors)
    _check_number_of_runs(file, variants, errors)
    _check_compare(file, errors)
    _check_configurations(file, variants, errors)


def missing_in_some_epochs(
    metric: str, config: TrainableConfig, data: DatasetConfig | None
) -> str | None:
    """Return why Runs of a configuration do not report a metric every epoch; None where they do.

    metric: one that the trainable can report; data: the configuration's data set, None if unknown.
    """
    if metric in (KNN, LINEAR) and getattr(config, "probe_every", 1) != 1:
        return f"{metric!r} is not reported every epoch: set `probe_every: 1`"
    return never_reported(metric, config, data)


def never_reported(metric: str, config: TrainableConfig, data: DatasetConfig | None) -> str | None:
    """Return why Runs of a configuration report a metric in no epoch; None where they do in some.
    Parameters as above."""
    if metric not in (KNN, LINEAR):
        return None
    if not getattr(config, "probe_every", 1):
        return f"{metric!r} is never measured: set `probe_every` to 1 or more"
    if data and (not data.labels or DATASETS[data.type].masked):
        return f"{metric!r} needs images with a class, and {config.dataset!r} has none"
    return None


def _check_names(file: StudyFile, errors: ErrorList) -> None:
    names = [("study", file.study), *((f"stages.{name}", name) for name in file.stages)]
    names += [(f"data.{name}", name) for name in file.data]
    for key, name in names:
        if not NAME.fullmatch(name):
            errors.add(key, f"name {name!r} may hold letters, digits, '_' and '-', 64 at most")


def _check_parents(file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Parents must exist, must not lead back to their child, and their weights must fit."""
    for name, stage in file.stages.items():
        after = stage.after
        if after is not None and after not in file.stages:
            message = f"no stage {after!r}{suggestion(after, file.stages, 'stages')}"
            errors.add(f"stages.{name}.after", message)
        elif after is not None and after in variants and name in variants:
            _check_weight_transfer(name, after, variants, errors)
    if cycle := file.cycle():
        errors.add("stages", f"`after` has a cycle: {' → '.join(cycle)}")


def _check_weight_transfer(name: str, after: str, variants: Variants, errors: ErrorList) -> None:
    if not isinstance(variants[after][0].config, TrainableConfig):
        errors.add(
            f"stages.{name}.after", f"{after!r} is a producer: it has no weights to start from"
        )
        return
    for weights in dict.fromkeys(child.config.weights for child in variants[name]):
        if weights != "random":
            errors.add(
                f"stages.{name}.config.weights",
                f"is {weights!r}, but the stage starts from the weights of {after!r}: "
                "remove `weights` or `after`",
            )
    for key in LINKED:
        theirs = dict.fromkeys(getattr(parent.config, key) for parent in variants[after])
        ours = dict.fromkeys(getattr(child.config, key) for child in variants[name])
        for own, inherited in itertools.product(ours, theirs):
            if own != inherited:
                errors.add(
                    f"stages.{name}.config.{key}",
                    f"is {own!r}, but its parent {after!r} has {inherited!r}, and weights must "
                    "fit: give both the same",
                )


def _check_weight_files(file: StudyFile, errors: ErrorList) -> None:
    """Stages whose weights come as a file instead of being trained."""
    for name, path in file.weight_files().items():
        if not os.path.isfile(path):
            errors.add(f"stages.{name}.weights", f"there is no file {path}")
        if not any(stage.after == name for stage in file.stages.values()):
            errors.add(
                f"stages.{name}.weights",
                f"replaces the training of {name!r}, from which no stage starts",
            )


def _check_varied_split(file: StudyFile, errors: ErrorList) -> None:
    """Folds are cut once, so that each image is tested once: seeds cannot draw others."""
    for name, config in file.data.items():
        if "split" in file.vary and config.folds is not None:
            errors.add(
                f"data.{name}.folds",
                "folds are the same for all seeds, and seeds.vary has `split`, which gives each "
                "seed another cut: keep one of both",
            )


def _check_seeds(file: StudyFile, errors: ErrorList) -> None:
    seeds = file.seeds.values if isinstance(file.seeds, Seeds) else file.seeds
    written = [("seeds", seeds)]
    written += [(f"stages.{name}.seeds", s.seeds) for name, s in file.stages.items() if s.seeds]
    for key, seeds in written:
        if len(set(seeds)) < len(seeds):
            errors.add(key, f"lists a seed twice: {seeds}")
    _check_varied_split(file, errors)
    for name, stage in file.stages.items():
        if stage.after in file.stages:
            missing = file.seeds_needed_by(name) - set(file.seeds_of(stage.after))
            if missing:
                errors.add(
                    f"stages.{name}.seeds",
                    f"a Run of seed s starts from its parent's Run of seed s, "
                    f"but {stage.after!r} has no seed {min(missing)}",
                )


def _check_resources(file: StudyFile, errors: ErrorList) -> None:
    """Check that `resources` of a stage fit those of the study, which hold for what it leaves
    out."""
    for name, stage in file.stages.items():
        try:
            if stage.resources is not None:
                stage.resources.over(file.resources)
        except ValidationError as error:
            reasons = "; ".join(
                fault["msg"].removeprefix("Value error, ") for fault in error.errors()
            )
            errors.add(
                f"stages.{name}.resources", f"together with `resources` of the study: {reasons}"
            )


def _check_number_of_runs(file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    """Count the Runs before any is made. Those of a stage are its configurations x its seeds x the
    configurations of the stages that it starts from."""
    if file.cycle() or any(
        stage.after and stage.after not in variants for stage in file.stages.values()
    ):
        return
    configurations: dict[str, int] = {}
    total = 0
    for name in file.parents_first():
        search, after = file.stages[name].search, file.stages[name].after
        own = len(variants.get(name, ()))
        if search is not None:
            own, total = (search.then.best + 1 if search.then else 0), total + search.count
        configurations[name] = own * configurations.get(after or "", 1)
        total += configurations[name] * len(file.seeds_of(name))
    if total > MOST_RUNS:
        errors.add(
            "stages",
            f"the study has {total} Runs and trials, and may have {MOST_RUNS} at most: shorten "
            "`grid:`, `seeds:` or `trials:`",
        )


def _check_compare(file: StudyFile, errors: ErrorList) -> None:
    for name in file.compare.stages or ():
        if name not in file.stages:
            message = f"no stage {name!r}{suggestion(name, file.stages, 'stages')}"
            errors.add("compare.stages", message)
    _check_differences(file, errors)
    tasks = {stage.task for stage in file.stages.values()}
    used = {task for task in tasks if task in TRAINABLE_SCHEMAS or task in PRODUCER_SCHEMAS}
    reported = {metric for name in used for metric in reported_metrics(name)}
    metrics = sorted(reported | _figures_of_predictions(used))
    # which classes there are is known where the data is
    split, _, class_name = file.compare.metric.partition("/iou/")
    metric = f"{split}/miou" if class_name else file.compare.metric
    if used and metric not in metrics:
        errors.add(
            "compare.metric",
            f"no stage reports {file.compare.metric!r}{suggestion(file.compare.metric, metrics)}",
        )
    for label in file.reference:
        if label.split("[")[0] not in file.stages:
            message = f"no stage {label!r}{suggestion(label, file.stages, 'stages')}"
            errors.add(f"reference.{label}", message)


def _figures_of_predictions(tasks: Iterable[str]) -> set[str]:
    """Return the full names of figures, one a Run, that follow from a classifier's predictions."""
    if all(
        name in PRODUCER_SCHEMAS or TRAINABLE_SCHEMAS[name].PREDICTS != "classes" for name in tasks
    ):
        return set()
    return {f"test/{name}" for name in OF_PREDICTIONS if name not in OF_PARTS}


def _check_differences(file: StudyFile, errors: ErrorList) -> None:
    """Only figures that stand in one table have a difference."""
    compared = file.compared().stages or ()
    for index, pair in enumerate(file.compare.differences):
        key = f"compare.differences[{index}]"
        unknown = [name for name in pair if name not in file.stages]
        left_out = [name for name in pair if name not in compared]
        for name in unknown:
            errors.add(key, f"no stage {name!r}{suggestion(name, file.stages, 'stages')}")
        if unknown:
            continue
        first, second = (file.stages[name] for name in pair)
        if pair[0] == pair[1]:
            errors.add(key, f"{pair[0]!r} is compared with itself")
        elif left_out:
            errors.add(key, f"{left_out[0]!r} is not compared: name it in compare.stages")
        elif first.task != second.task or _dataset_of(first.config) != _dataset_of(second.config):
            message = f"{pair[0]!r} and {pair[1]!r} have another task or data set: not comparable"
            errors.add(key, message)


def _dataset_of(config: Mapping[str, object]) -> object:
    return config.get("dataset")


def _check_configurations(file: StudyFile, variants: Variants, errors: ErrorList) -> None:
    for name, points in variants.items():
        if name not in file.stages:
            continue  # an error of its form is in the list already
        for config in (point.config for point in points):
            key = f"stages.{name}.config"
            known = config.dataset in file.data
            if not known:
                message = f"no data {config.dataset!r}{suggestion(config.dataset, file.data)}"
                errors.add(f"{key}.dataset", message)
            if isinstance(config, TrainableConfig):
                _check_training(key, config, file, name, errors)
                if known and not file.stages[name].weights:  # else it learns nothing
                    _check_needs(f"{key}.dataset", file, name, config.dataset, errors)
                continue
            try:
                _check_producer(file.stages[name].task, config)
            except ValueError as error:
                errors.add(f"{key}.weights", str(error))


def _check_producer(name: str, config: ProducerConfig) -> None:
    """Raises ValueError where the producer's files do not fit."""
    PRODUCER_SCHEMAS[name].check(config)
    if not os.path.isfile(config.weights):
        raise ValueError(f"there is no file {config.weights}")


def _check_training(
    key: str, config: TrainableConfig, file: StudyFile, name: str, errors: ErrorList
) -> None:
    stop, metrics = config.early_stopping, reported_metrics(file.stages[name].task)
    allowed = [metric for metric in metrics if not metric.startswith("test/")]
    dotted = f"{key}.early_stopping.metric"
    metric = stop.metric if stop is not None else None  # None: that which chooses the epoch
    if metric is not None and metric not in allowed:
        message = f"{metric!r} is not reported every epoch{suggestion(metric, allowed)}"
        errors.add(dotted, message)
    elif metric is not None:
        reason = never_reported(metric, config, file.data.get(config.dataset))
        if reason is not None:
            errors.add(dotted, reason)
    if config.weights not in _NAMED_WEIGHTS and not os.path.isfile(config.weights):
        errors.add(f"{key}.weights", f"there is no file {config.weights}")


def _check_needs(dotted: str, file: StudyFile, stage: str, dataset: str, errors: ErrorList) -> None:
    """A data set must have what a trainable learns from: labels, masks, or neither."""
    trainable, data = file.stages[stage].task, file.data[dataset]
    needs, masked = TRAINABLE_SCHEMAS[trainable].NEEDS, DATASETS[data.type].masked
    has = None if not data.labels else "masks" if masked else "labels"
    if needs is None or needs == has:
        return
    others = " or ".join(name for name, kind in TRAINABLE_SCHEMAS.items() if kind.NEEDS is None)
    if needs == "masks":
        types = ", ".join(name for name, kind in DATASETS.items() if kind.masked)
        advice = f"give it a data set with masks ({types})"
    else:
        advice = f"give it class folders, or train {others} on it"
    what = "`labels: false`" if not data.labels else f"type {data.type}, whose images have {has}"
    errors.add(dotted, f"{dataset!r} has {what}, and {trainable} learns from {needs}: {advice}")
