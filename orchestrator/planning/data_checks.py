"""Check that the configurations of a study fit its data, before anything starts."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Stage, Study
from orchestrator.planning.run import Run
from trainables.data.contract import Source
from trainables.data.watched import watched_rows
from trainables.dataset import DataError, DataInfo
from trainables.layouts.folders import passed_over_text
from trainables.loading.copies import pairs_text, shared_pairs
from trainables.loading.mask_counts import MaskCounts
from trainables.models.matching import WeightsError
from trainables.models.state_file import check_file
from trainables.schemas.registry import TRAINABLE_SCHEMAS
from trainables.training_config import TrainableConfig, check_batch

_NO_RGB = "a producer needs RGB: name a data set without `channels`, with three `bands`"


@dataclass(frozen=True)
class DataSet:
    """A data set of a study: its images and splits, the fingerprint of its content, what its masks
    hold, if it has any, and the hash of each image."""

    name: str
    source: Source
    fingerprint: str
    masks: MaskCounts | None = None
    contents: tuple[str, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """Return what a reader should know, a line each: notes, and what was passed over."""
        passed = passed_over_text(self.source.passed_over)
        return [*self.source.notes, *([f"passed over: {passed}"] if passed else [])]


def check_fit(study: Study, data: Mapping[str, DataSet]) -> None:
    """Check batch sizes, and what each trainable needs of its data. Raises StudyError."""
    errors = ErrorList()
    for stage in study.stages:
        for config in (variant.config for variant in stage.variants):
            if not isinstance(config, TrainableConfig):
                if data[config.dataset].source.bands is not None:
                    errors.add(f"stages.{stage.name}.config.dataset", _NO_RGB)
                continue  # the study loader has checked the rest of producers
            source = data[config.dataset].source
            info = _info(study, data, config.dataset)
            batch = min(config.batch_size, len(source.parts["train"]))
            try:
                check_batch(batch, study.resources.workers, config.accumulate)
                TRAINABLE_SCHEMAS[stage.trainable].check(config, info)
                _check_channels(config, info)
            except ValueError as error:
                errors.add(f"stages.{stage.name}.config", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)


def _info(study: Study, data: Mapping[str, DataSet], name: str) -> DataInfo:
    source = data[name].source
    return DataInfo(source.classes, study.data[name].side, source.reading.channels)


def _check_channels(config: TrainableConfig, info: DataInfo) -> None:
    if info.channels != 3 and config.weights == "imagenet":
        raise ValueError(
            f"weights 'imagenet' are for RGB, and the data set has {info.channels} channels: set "
            "weights to random, or name three `bands`"
        )


def check_held_out(study: Study, data: Mapping[str, DataSet]) -> None:
    """Check that no stage is validated or tested on images that a stage before it trained on.

    Images are compared by content, whatever they are called. Raises StudyError.
    """
    errors, stages = ErrorList(), {stage.name: stage for stage in study.stages}

    @cache  # thousands of files, and every stage needs them
    def images(name: str, part: str) -> Mapping[str, str]:
        return _images(data[name], part)

    for stage in study.stages:
        ancestor = stage.after
        while ancestor is not None:
            pairs = itertools.product(_training_data(stages[ancestor]), _training_data(stage))
            for theirs, own in pairs:
                for part in ("val", "test") if theirs != own else ():
                    if shared := shared_pairs(images(own, part), images(theirs, "train")):
                        errors.add(
                            f"stages.{stage.name}.after",
                            f"{ancestor!r} trains on {len(shared)} of the {part} images of "
                            f"{own!r} ({pairs_text(shared)}): use one entry of `data` for both, "
                            f"or remove these images from {theirs!r}",
                        )
            ancestor = stages[ancestor].after
    if errors.lines:
        raise StudyError(study.name, errors.lines)


def _training_data(stage: Stage) -> list[str]:
    """Return the names of the data sets that a stage's configurations are trained on."""
    configs = [variant.config for variant in stage.variants]
    return sorted({c.dataset for c in configs if isinstance(c, TrainableConfig)})


def _images(data: DataSet, part: str) -> dict[str, str]:
    """Return the hash of the content → name of the images of a part."""
    return {data.contents[row]: data.source.names[row] for row in data.source.parts[part]}


def check_weights(study: Study, data: Mapping[str, DataSet]) -> None:
    """Check that weights from files fit their encoders, tensor by tensor. Raises StudyError."""
    errors = ErrorList()
    checked: set[tuple[str, str]] = set()
    for stage in study.stages:
        for config in (variant.config for variant in stage.variants):
            path = config.weights
            if path in ("random", "imagenet") or not isinstance(config, TrainableConfig):
                continue  # a producer checks its own file
            info = _info(study, data, config.dataset)
            shapes = TRAINABLE_SCHEMAS[stage.trainable].encoder_shapes(config, info)
            try:
                if (path, str(shapes)) not in checked:  # a grid has the same network many times
                    check_file(Path(path), shapes)
                    checked.add((path, str(shapes)))
            except WeightsError as error:
                errors.add(f"stages.{stage.name}.config.weights", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)


def check_watched(study: Study, runs: Iterable[Run], data: Mapping[str, DataSet]) -> None:
    """Check that the images to watch exist and are not trained on. Raises StudyError."""
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
