"""Check that the configurations of a study fit its data sets and its files of weights."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Study
from orchestrator.study_data.data_sets import DataSet
from trainables.backbones import check_images
from trainables.data.watched import watched_rows
from trainables.dataset import DataError, DataInfo
from trainables.models.matching import WeightsError
from trainables.models.state_file import check_file
from trainables.schemas.registry import TRAINABLE_SCHEMAS
from trainables.training_config import TrainableConfig, check_batch

_NO_RGB = "a producer needs RGB: name a data set without `channels`, with three `bands`"


def check_fit(study: Study, data: Mapping[str, DataSet]) -> list[str]:
    """Check batch sizes, and what each trainable needs of its data. Returns remarks, a line each.
    Raises StudyError."""
    errors, remarks = ErrorList(), []
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
                check_batch(batch, stage.resources.workers, config.accumulate)
                schema = TRAINABLE_SCHEMAS[stage.trainable]
                schema.check(config, info)
                _check_channels(config, info)
                _check_backbone(config, info)
                if remark := schema.remark(config, info):
                    remarks.append(f"stages.{stage.name}: {remark}")
            except ValueError as error:
                errors.add(f"stages.{stage.name}.config", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    return remarks


def _check_backbone(config: TrainableConfig, info: DataInfo) -> None:
    """Raise ValueError where a network does not take the images."""
    train = getattr(config, "train", "full")
    check_images(config.backbone, config.seen(info.size), info.channels, train)


def _info(study: Study, data: Mapping[str, DataSet], name: str) -> DataInfo:
    source = data[name].source
    return DataInfo(source.classes, study.data[name].side, source.reading.channels)


def _check_channels(config: TrainableConfig, info: DataInfo) -> None:
    if info.channels != 3 and config.weights == "imagenet":
        raise ValueError(
            f"weights 'imagenet' are for RGB, and the data set has {info.channels} channels: set "
            "weights to random, or name three `bands`"
        )


def check_weights(study: Study, data: Mapping[str, DataSet]) -> list[str]:
    """Check that weights from files fit their encoders, tensor by tensor. Returns remarks, a line
    each. Raises StudyError."""
    errors, remarks = ErrorList(), []
    checked: dict[tuple[str, str], str] = {}
    for stage in study.stages:
        for config in (variant.config for variant in stage.variants):
            path = config.weights
            if path in ("random", "imagenet") or not isinstance(config, TrainableConfig):
                continue  # a producer checks its own file
            info = _info(study, data, config.dataset)
            shapes = TRAINABLE_SCHEMAS[stage.trainable].encoder_shapes(config, info)
            try:
                if (path, str(shapes)) not in checked:  # a grid has the same network many times
                    checked[path, str(shapes)] = check_file(Path(path), shapes)
                if remark := checked[path, str(shapes)]:
                    remarks.append(f"stages.{stage.name}.config.weights: {path}: {remark}")
            except WeightsError as error:
                errors.add(f"stages.{stage.name}.config.weights", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    return remarks


def check_watched(
    study: Study, watched: Iterable[tuple[str, Mapping[str, Any]]], data: Mapping[str, DataSet]
) -> None:
    """Check that the images to watch exist and are not trained on. watched: stage and configuration
    of each Run. Raises StudyError."""
    errors = ErrorList()
    for stage, names, dataset in {
        (stage, tuple(config.get("watch", ())), config["dataset"]) for stage, config in watched
    }:
        source = data[dataset].source
        try:
            held_out = [*source.parts["val"], *source.parts["test"]]
            watched_rows(source.names, source.parts["val"], names, held_out)
        except DataError as error:
            errors.add(f"stages.{stage}.config.watch", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
