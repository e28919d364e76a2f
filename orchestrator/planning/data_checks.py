"""Check a study against its data before anything starts."""

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Stage, Study
from orchestrator.planning.run import Run
from trainables.data.source import Source
from trainables.dataset import DataError, DataInfo
from trainables.loading.batches import check_batch
from trainables.models.weights import WeightsError, fitting, read_state_file
from trainables.monitoring.watched_masks import watched_rows
from trainables.tasks.registry import TRAINABLES
from trainables.training_config import TrainableConfig


@dataclass(frozen=True)
class DataSet:
    """A data set of a study: what was found, and the hash of its content."""

    name: str
    source: Source
    fingerprint: str


def check_fit(study: Study, data: Mapping[str, DataSet]) -> None:
    """Configurations must fit their data. Raises StudyError."""
    errors = ErrorList()
    for stage in study.stages:
        for config in (variant.config for variant in stage.variants):
            if not isinstance(config, TrainableConfig):
                continue  # a producer's study has checked it
            source = data[config.dataset].source
            info = DataInfo(source.classes, study.data[config.dataset].side)
            batch = min(config.batch_size, len(source.parts["train"]))
            try:
                check_batch(batch, study.resources.workers, config.accumulate)
                TRAINABLES[stage.trainable].check(config, info)
            except ValueError as error:
                errors.add(f"stages.{stage.name}.config", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)


def check_apart(study: Study, data: Mapping[str, DataSet]) -> None:
    """Nothing may start from weights that have seen what it is validated or tested with. Raises
    StudyError."""
    errors, stages = ErrorList(), {stage.name: stage for stage in study.stages}

    @cache  # of thousands of files, asked for by every stage
    def images(name: str, part: str) -> frozenset[str]:
        return _images(data[name].source, study.data[name].type, part)

    for stage in study.stages:
        before = stage.after
        while before is not None:
            pairs = itertools.product(_learns_from(stages[before]), _learns_from(stage))
            for theirs, own in pairs:
                for part in ("val", "test") if theirs != own else ():
                    if seen := images(theirs, "train") & images(own, part):
                        errors.add(
                            f"stages.{stage.name}.after",
                            f"{before!r} trains on {len(seen)} of the {part} images of {own!r}: "
                            "use one entry of `data` for both, or keep those of "
                            f"{theirs!r} apart from them",
                        )
            before = stages[before].after
    if errors.lines:
        raise StudyError(study.name, errors.lines)


def _learns_from(stage: Stage) -> list[str]:
    """Names of the data sets that its configurations are trained on."""
    configs = [variant.config for variant in stage.variants]
    return sorted({c.dataset for c in configs if isinstance(c, TrainableConfig)})


def _images(source: Source, kind: str, part: str) -> frozenset[str]:
    """What tells images from all others: their files, or their names in a set that has no files."""
    rows = source.parts[part]
    if source.files:
        return frozenset(os.path.realpath(source.files[row]) for row in rows)
    return frozenset(f"{kind}/{source.names[row]}" for row in rows)


def check_weights(study: Study, data: Mapping[str, DataSet]) -> None:
    """Weights that come as a file must fit, tensor by tensor. Raises StudyError."""
    errors = ErrorList()
    files: dict[str, Mapping[str, Tensor]] = {}
    for stage in study.stages:
        for config in (variant.config for variant in stage.variants):
            path = config.weights
            if path in ("random", "imagenet") or not isinstance(config, TrainableConfig):
                continue  # a producer's official file is known by its sha256
            info = DataInfo(data[config.dataset].source.classes, study.data[config.dataset].side)
            try:
                if path not in files:
                    files[path] = read_state_file(Path(path))
                with torch.device("meta"):  # names and shapes alone
                    encoder = TRAINABLES[stage.trainable](config, info).model.encoder
                fitting(encoder.state_dict(), files[path], path)
            except WeightsError as error:
                errors.add(f"stages.{stage.name}.config.weights", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)


def check_watched(study: Study, runs: Iterable[Run], data: Mapping[str, DataSet]) -> None:
    """Images to watch must be there. Raises StudyError."""
    errors = ErrorList()
    for stage, names, dataset in {
        (run.stage, tuple(run.config.get("watch", ())), run.config["dataset"]) for run in runs
    }:
        source = data[dataset].source
        try:
            held_out = [*source.parts["val"], *source.parts["test"]]
            watched_rows(source.names, source.parts["val"], names, held_out)
        except DataError as error:
            errors.add(f"stages.{stage}.config.watch", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
