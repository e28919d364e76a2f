"""Read the data sets of a study, and check that its configurations fit them.

Runs where the data is: in the command, or in the driver on the cluster.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Stage, Study
from orchestrator.planning.run import Run, data_of_seed, written_name
from trainables.contents.copies import (
    KEPT,
    Settled,
    pairs_text,
    settle_copies,
    without_training_on,
)
from trainables.contents.leaks import Leak, judging, leaks
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.data.watched import watched_rows
from trainables.dataset import DataError, DataInfo
from trainables.layouts.folders import passed_over_text
from trainables.loading.fingerprints import content_hashes, fingerprint
from trainables.loading.image_files import unreadable_sample
from trainables.loading.image_table import fault
from trainables.loading.mask_counts import (
    MaskCounts,
    check_masks,
    count_masks,
    remembered_numbers,
)
from trainables.loading.near_tables import near_lines
from trainables.models.matching import WeightsError
from trainables.models.state_file import check_file
from trainables.pixels.images import unreadable_images
from trainables.schemas.producer import ProducerConfig
from trainables.schemas.registry import TRAINABLE_SCHEMAS
from trainables.training_config import TrainableConfig, check_batch

Progress = Callable[[str, int, int], None]
_NO_RGB = "a producer needs RGB: name a data set without `channels`, with three `bands`"


@dataclass(frozen=True)
class DataSet:
    """Holds a data set: images and splits, the fingerprint of its content, what its masks have.
    cautions: why figures may be too good; whole: nothing is held out, for producers alone."""

    name: str
    source: Source
    fingerprint: str
    masks: MaskCounts | None = None
    cautions: tuple[str, ...] = ()
    whole: bool = False

    @property
    def remarks(self) -> list[str]:
        """Return what a reader should know, a line each: cautions, notes, what was passed over."""
        passed = passed_over_text(self.source.passed_over)
        said = [*(f"warning: {line}" for line in self.cautions), *self.source.notes]
        return [*said, *([f"passed over: {passed}"] if passed else [])]


@dataclass(frozen=True)
class _Listed:
    """A data set whose images are found. hashes: of each image."""

    config: DatasetConfig
    hashes: list[str]
    settled: Settled
    trained_on: bool


def read_data(
    study: Study, root: Path | None, cache: Path, progress: Progress
) -> dict[str, DataSet]:
    """List and fingerprint every data set, settle its copies, and look at its masks.

    root: the folder of `--data`, if any; cache: the folder of what was read before. Raises
    StudyError with the errors of all of them.
    """
    errors = ErrorList()
    listed: dict[str, _Listed] = {}
    whole = _for_producers_alone(study)
    for name, config in study.data.items():
        try:
            manifest = cache / f"manifest-{_location_id(config, root)}.json"
            is_trained_on = name not in whole  # also what no stage uses: `data` describes it
            numbers = remembered_numbers(manifest, partial(progress, name))
            source = read(config, root, is_trained_on, numbers)
            hashes = content_hashes(source, manifest, partial(progress, name))
            settled = Settled(source, tuple(hashes))
            if is_trained_on:
                settled = _settled(settled, config, errors, name)
            listed[name] = _Listed(config, hashes, settled, is_trained_on)
        except DataError as error:
            errors.add(_key(name), str(error))
    data: dict[str, DataSet] = {}
    for name, item in _settled_between(study, listed, errors).items():
        try:
            manifest = cache / f"manifest-{_location_id(item.config, root)}.json"
            data[name] = _described(name, item, manifest, partial(progress, name))
            for line in _faults(data[name], item):
                errors.add(_key(name), line)
        except DataError as error:
            errors.add(_key(name), str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    return data


def _key(name: str) -> str:
    """Return the key of the study file under which a data set stands."""
    return f"data.{written_name(name)}"


def trained_on(study: Study) -> set[str]:
    """Return the names of the data sets that a trainable learns from."""
    return {
        data_of_seed(name, seed)
        for stage in study.stages
        for name in _training_data(stage)
        for seed in stage.all_seeds
    }


def _for_producers_alone(study: Study) -> set[str]:
    configs = [variant.config for stage in study.stages for variant in stage.variants]
    produced = {config.dataset for config in configs if isinstance(config, ProducerConfig)}
    return produced - trained_on(study)


def _settled(found: Settled, config: DatasetConfig, errors: ErrorList, name: str) -> Settled:
    """Settle copies. What is wrong goes to the errors, so that other faults are found too."""
    try:
        return settle_copies(found.source, found.contents, config.on_duplicates)
    except DataError as error:
        warnings = [note for note in found.source.notes if note.startswith("warning: ")]
        for line in (str(error), *warnings):  # of a refused set no remarks are shown
            errors.add(_key(name), line)
        return found


def _settled_between(
    study: Study, listed: Mapping[str, _Listed], errors: ErrorList
) -> dict[str, _Listed]:
    """Settle images that a stage trains on and by which a stage after it, on other data, is judged.

    Images are compared by content, whatever they are called. The data set that is trained on says
    what is done (`on_duplicates`). What is refused goes to the errors.
    """
    settled, judges, refused = dict(listed), dict[str, set[str]](), set[tuple[str, ...]]()
    for stage, ancestor, own, theirs in _transfers(study, listed):
        child, parent = listed[own].settled, listed[theirs].settled
        for leak in leaks(child.source, child.contents, parent.source, parent.contents):
            choice = listed[theirs].config.on_duplicates
            if choice == "error":
                pair = (stage, ancestor, written_name(own), written_name(theirs))
                if pair not in refused:  # of many folds one is said
                    errors.add(f"stages.{stage}.after", _refusal(leak, ancestor, own, theirs))
                refused.add(pair)
            elif choice == "drop":
                judges.setdefault(theirs, set()).update(judging(child.source, child.contents))
            else:
                settled[own] = _cautioned(settled[own], leak, theirs)
    for name, contents in judges.items():
        item = settled[name]
        try:
            source = without_training_on(item.settled.source, contents, item.settled.contents)
            settled[name] = replace(item, settled=replace(item.settled, source=source))
        except DataError as error:
            errors.add(_key(name), str(error))
    return settled


def _transfers(study: Study, names: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield each stage with each stage before it whose weights it gets and whose data is other: two
    stages, and the names of their data sets. Of folds, those of one seed."""
    stages = {stage.name: stage for stage in study.stages}
    for stage in study.stages:
        ancestor = stage.after
        while ancestor is not None:
            written = itertools.product(_training_data(stage), _training_data(stages[ancestor]))
            pairs = {
                (data_of_seed(own, seed), data_of_seed(theirs, seed)): None
                for own, theirs in written
                for seed in stage.all_seeds
            }
            for own, theirs in pairs:
                if own != theirs and {own, theirs} <= set(names):
                    yield stage.name, ancestor, own, theirs
            ancestor = stages[ancestor].after


def _training_data(stage: Stage) -> list[str]:
    """Return the names of the data sets that a stage's configurations are trained on."""
    configs = [variant.config for variant in stage.variants]
    return sorted({c.dataset for c in configs if isinstance(c, TrainableConfig)})


def _refusal(leak: Leak, ancestor: str, own: str, theirs: str) -> str:
    return (
        f"{ancestor!r} trains on {len(leak.pairs)} of the {leak.part} images of {own!r} "
        f"({pairs_text(leak.pairs)}): use one entry of `data` for both, or remove these images "
        f"from {theirs!r}, or set `on_duplicates` in {_key(theirs)}: `drop` to leave them out of "
        "its training, or `keep`"
    )


def _cautioned(item: _Listed, leak: Leak, theirs: str) -> _Listed:
    count = len(leak.pairs)
    line = (
        f"{count} of {leak.total} {leak.part} images {'are' if count > 1 else 'is'} in the "
        f"training images of {theirs!r}, from which a stage starts ({pairs_text(leak.pairs)}); "
        f"kept ({KEPT} of {theirs!r})"
    )
    cautions = tuple(dict.fromkeys((*item.settled.cautions, line)))
    return replace(item, settled=replace(item.settled, cautions=cautions))


def _described(
    name: str, item: _Listed, manifest: Path, progress: Callable[[int, int], None]
) -> DataSet:
    source = item.settled.source
    key = fingerprint(source, item.config, manifest, item.hashes, progress)
    masks = count_masks(source, manifest, progress) if source.masks else None
    return DataSet(name, source, key, masks, item.settled.cautions, not item.trained_on)


def _faults(data: DataSet, item: _Listed) -> list[str]:
    """Return what is wrong with the masks of a data set, or with a sample of its images."""
    config, side = item.config, item.config.side if item.trained_on else None
    lines = check_masks(data.masks, config.on_corrupt, side) if data.masks else []
    if not lines and config.on_corrupt == "fail" and (faults := unreadable_sample(data.source)):
        lines.append(str(unreadable_images(faults)))
    return lines


def _location_id(config: DatasetConfig, root: Path | None) -> str:
    """Return 12 hexadecimal digits that name the place of a data set on the disk."""
    text = f"{config.type} {config.path or root} {config.subfolder}"
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:12]


def near_remarks(
    study: Study, data: Mapping[str, DataSet], cache: Path, compute: bool
) -> dict[str, list[str]]:
    """Return data set → warnings of images that look nearly like training images, as far as caches
    of decoded images are there. compute: whether what is not known yet is looked for."""
    pairs = {name: {name: None} for name in data if name in trained_on(study)}
    for _, _, own, theirs in _transfers(study, data):
        pairs[own][theirs] = None
    folders = {name: cache / data[name].fingerprint for name in pairs}
    there = {name for name, folder in folders.items() if fault(folder) is None}
    return {
        own: [
            line
            for theirs in others
            if {own, theirs} <= there
            for line in near_lines((own, folders[own]), (theirs, folders[theirs]), compute)
        ]
        for own, others in pairs.items()
    }


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
                check_batch(batch, study.resources.workers, config.accumulate)
                schema = TRAINABLE_SCHEMAS[stage.trainable]
                schema.check(config, info)
                _check_channels(config, info)
                if remark := schema.remark(config, info):
                    remarks.append(f"stages.{stage.name}: {remark}")
            except ValueError as error:
                errors.add(f"stages.{stage.name}.config", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    return remarks


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
