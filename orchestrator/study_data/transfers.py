"""Find images that a stage trains on and by which a stage after it, on other data, is judged."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.config.errors import ErrorList
from orchestrator.config.study_schema import Study
from orchestrator.study_data.data_sets import (
    DataSet,
    ListedData,
    data_key,
    trained_on,
    training_data,
)
from orchestrator.study_data.seed_cuts import data_of_seed, written_name
from trainables.contents.copies import KEPT, pairs_text, without_training_on
from trainables.contents.leaks import Leak, judging, leaks
from trainables.dataset import DataError
from trainables.loading.image_table import fault
from trainables.loading.near_tables import near_lines


def settled_between(
    study: Study, listed: Mapping[str, ListedData], errors: ErrorList
) -> dict[str, ListedData]:
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
            errors.add(data_key(name), str(error))
    return settled


def _transfers(study: Study, names: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield each stage with each stage before it whose weights it gets and whose data is other: two
    stages, and the names of their data sets. Of folds, those of one seed."""
    stages = {stage.name: stage for stage in study.stages}
    for stage in study.stages:
        ancestor = stage.after
        while ancestor is not None:
            written = itertools.product(training_data(stage), training_data(stages[ancestor]))
            pairs = {
                (data_of_seed(own, seed), data_of_seed(theirs, seed)): None
                for own, theirs in written
                for seed in stage.all_seeds
            }
            for own, theirs in pairs:
                if own != theirs and {own, theirs} <= set(names):
                    yield stage.name, ancestor, own, theirs
            ancestor = stages[ancestor].after


def _refusal(leak: Leak, ancestor: str, own: str, theirs: str) -> str:
    return (
        f"{ancestor!r} trains on {len(leak.pairs)} of the {leak.part} images of {own!r} "
        f"({pairs_text(leak.pairs)}): use one entry of `data` for both, or remove these images "
        f"from {theirs!r}, or set `on_duplicates` in {data_key(theirs)}: `drop` to leave them out "
        "of its training, or `keep`"
    )


def _cautioned(item: ListedData, leak: Leak, theirs: str) -> ListedData:
    count = len(leak.pairs)
    line = (
        f"{count} of {leak.total} {leak.part} images {'are' if count > 1 else 'is'} in the "
        f"training images of {theirs!r}, from which a stage starts ({pairs_text(leak.pairs)}); "
        f"kept ({KEPT} of {theirs!r})"
    )
    cautions = tuple(dict.fromkeys((*item.settled.cautions, line)))
    return replace(item, settled=replace(item.settled, cautions=cautions))


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
