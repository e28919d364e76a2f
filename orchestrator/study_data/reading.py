"""Read the data sets of a study: list, fingerprint and settle them.

Runs where the data is: in the command, or in the driver on the cluster.
"""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Study
from orchestrator.study_data.data_sets import DataSet, ListedData, data_key, trained_on
from orchestrator.study_data.seed_cuts import cut_of
from orchestrator.study_data.transfers import settled_between
from trainables.contents.copies import Settled, settle_copies
from trainables.data.contract import Source
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.loading.fingerprints import content_hashes, fingerprint
from trainables.loading.image_files import unreadable_sample
from trainables.loading.mask_counts import check_masks, count_masks, remembered_numbers
from trainables.pixels.images import unreadable_images
from trainables.schemas.producer import ProducerConfig

Progress = Callable[[str, int, int], None]


def read_data(
    study: Study, root: Path | None, cache: Path, progress: Progress
) -> dict[str, DataSet]:
    """List and fingerprint every data set, settle its copies, and look at its masks.

    root: the folder of `--data`, if any; cache: the folder of what was read before. Raises
    StudyError with the errors of all of them.
    """
    errors = ErrorList()
    listed: dict[str, ListedData] = {}
    whole = _for_producers_alone(study)
    for name, config in study.data.items():
        try:
            manifest = cache / f"manifest-{_location_id(config, root)}.json"
            is_trained_on = name not in whole  # also what no stage uses: `data` describes it
            numbers = remembered_numbers(manifest, partial(progress, name))
            source = read(config, root, is_trained_on, numbers)
            _check_can_be_cut(name, source)
            hashes = content_hashes(source, manifest, partial(progress, name))
            settled = Settled(source, tuple(hashes))
            if is_trained_on:
                settled = _settled(settled, config, errors, name)
            listed[name] = ListedData(config, hashes, settled, is_trained_on)
        except DataError as error:
            errors.add(data_key(name), str(error))
    data: dict[str, DataSet] = {}
    for name, item in settled_between(study, listed, errors).items():
        try:
            manifest = cache / f"manifest-{_location_id(item.config, root)}.json"
            data[name] = _described(name, item, manifest, partial(progress, name))
            for line in _faults(data[name], item):
                errors.add(data_key(name), line)
        except DataError as error:
            errors.add(data_key(name), str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    return data


def _check_can_be_cut(name: str, source: Source) -> None:
    """Raise DataError where each seed is to have a split of its own, and there is none to draw."""
    cut = cut_of(name)
    if cut is not None and cut.folds is None and {"val", "test"} <= source.given:
        raise DataError(
            "the data set has train, val and test of its own, so no seed can cut it anew: remove "
            "`split` from seeds.vary, or put all its images together"
        )


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
            errors.add(data_key(name), line)
        return found


def _described(
    name: str, item: ListedData, manifest: Path, progress: Callable[[int, int], None]
) -> DataSet:
    source = item.settled.source
    key = fingerprint(source, item.config, manifest, item.hashes, progress)
    masks = count_masks(source, manifest, progress) if source.masks else None
    return DataSet(name, source, key, masks, item.settled.cautions, not item.trained_on)


def _faults(data: DataSet, item: ListedData) -> list[str]:
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
