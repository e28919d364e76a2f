"""Where the data is: read and fingerprint the data sets, build their caches, make the plan."""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orchestrator.code_version import code_version
from orchestrator.faults import Faults, StudyError
from orchestrator.home import Home, read_json, write_json
from orchestrator.plan import (
    FORMAT,
    Inputs,
    Planned,
    Run,
    State,
    digest,
    examine,
    from_plain,
    make_plan,
    to_plain,
)
from orchestrator.produced import produced
from orchestrator.searches import PlannedSearch, pending, planned_searches, resolved
from orchestrator.store import Store
from orchestrator.study_file import Stage, Study
from orchestrator.trials import Trials, ranked
from trainables.backbones import WeightsError, fitting, read_state_file
from trainables.batches import check_batch
from trainables.cache import build, fingerprint
from trainables.catalog import PRODUCERS, TRAINABLES
from trainables.config import TrainableConfig
from trainables.datasets import DataError, DatasetConfig, read
from trainables.pictures import list_pictures, needs_table
from trainables.source import Source
from trainables.trainable import DataInfo
from trainables.watch import watched_rows

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DataSet:
    """A data set of a study: what was found, and the hash of its content."""

    name: str
    source: Source
    fingerprint: str


@dataclass(frozen=True)
class Prepared:
    """A study together with its data and its plan."""

    study: Study
    data: Mapping[str, DataSet]
    planned: tuple[Planned, ...]
    searches: tuple[PlannedSearch, ...] = ()  # those that have found, and those that could begin
    asked: str = ""  # digest of the plan before any search had found: names what was asked for

    @property
    def keys(self) -> dict[str, str]:
        """Stage → key of its search, as far as it is known."""
        return {search.stage.name: search.key for search in self.searches}

    @property
    def pending(self) -> list[str]:
        """Stages that have no Runs as yet, for want of what a search is to find."""
        return pending(self.study)

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(item.run for item in self.planned)


def prepare(study: Study, data_root: Path | None, home: Home) -> Prepared:
    """Read the data and make the plan; nothing is decoded or trained. Raises StudyError."""
    faults = Faults()
    data: dict[str, DataSet] = {}
    learnt = _learnt(study)
    for name, config in study.data.items():
        try:
            source = read(config, data_root, cut=name in learnt)
            manifest = home.cache / f"manifest-{_place(config, data_root)}.json"
            data[name] = DataSet(name, source, fingerprint(source, config, manifest))
        except DataError as error:
            faults.add(f"data.{name}", str(error))
    if faults.lines:
        raise StudyError(study.name, faults.lines)
    inputs = Inputs(
        {name: item.fingerprint for name, item in data.items()},
        _weight_files(study),
        {name: code_version(kind.__module__) for name, kind in TRAINABLES.items()}
        | {name: code_version(kind.__module__, "produce.py") for name, kind in PRODUCERS.items()},
        {name: _facts(name) for name in TRAINABLES | PRODUCERS},
    )
    runs = make_plan(study, inputs)
    asked, store = digest(study, runs, inputs), Store(home.store)
    searches: dict[str, PlannedSearch] = {}
    while ready := planned_searches(study, inputs, runs):
        searches |= {search.stage.name: search for search in ready}
        found = [search for search in ready if winners(store, search)]
        if not found:
            break
        for search in found:
            study = resolved(study, search.stage.name, winners(store, search))
        runs = make_plan(study, inputs)
    _check_fit(study, data)
    _check_apart(study, data)
    _check_weights(study, data)
    _check_watched(study, runs, data)
    planned = examine(runs, lambda key: state_of(store, key), _previous(home, study.name))
    return Prepared(study, data, planned, tuple(searches.values()), asked)


def winners(store: Store, planned: PlannedSearch) -> list[Mapping[str, Any]]:
    """The best configurations of a search, the best first; none while it has not ended."""
    search, trials = planned.search, Trials(store.folder(planned.key))
    if not trials.have_found(search.count):
        return []
    best = search.then.best if search.then else 1
    return [trial.recipe for trial in ranked(trials.all(search.count), search.mode)[:best]]


def _check_fit(study: Study, data: Mapping[str, DataSet]) -> None:
    """Configurations must fit their data. Raises StudyError."""
    faults = Faults()
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
                faults.add(f"stages.{stage.name}.config", str(error))
    if faults.lines:
        raise StudyError(study.name, faults.lines)


def _check_apart(study: Study, data: Mapping[str, DataSet]) -> None:
    """Nothing may start from weights that have seen what it is validated or tested with. Raises
    StudyError."""
    faults, stages = Faults(), {stage.name: stage for stage in study.stages}
    for stage in study.stages:
        before = stage.after
        while before is not None:
            for theirs, own in itertools.product(_learns_from(stages[before]), _learns_from(stage)):
                for part, count in _seen(theirs, own, study, data):
                    faults.add(
                        f"stages.{stage.name}.after",
                        f"{before!r} trains on {count} of the {part} images of {own!r}: use one "
                        f"entry of `data` for both, or keep those of {theirs!r} apart from them",
                    )
            before = stages[before].after
    if faults.lines:
        raise StudyError(study.name, faults.lines)


def _learns_from(stage: Stage) -> list[str]:
    """Names of the data sets that its configurations are trained on."""
    configs = [variant.config for variant in stage.variants]
    return sorted({c.dataset for c in configs if isinstance(c, TrainableConfig)})


def _seen(
    theirs: str, own: str, study: Study, data: Mapping[str, DataSet]
) -> list[tuple[str, int]]:
    """Part → how many of its images in one data set are training images of another one."""
    if theirs == own:
        return []
    learnt = _images(data[theirs].source, study.data[theirs].type, "train")
    held_out = [
        (part, _images(data[own].source, study.data[own].type, part)) for part in ("val", "test")
    ]
    return [(part, len(learnt & found)) for part, found in held_out if learnt & found]


def _images(source: Source, kind: str, part: str) -> set[str]:
    """What tells images from all others: their files, or their names in a set that has no files."""
    rows = source.parts[part]
    if source.files:
        return {os.path.realpath(source.files[row]) for row in rows}
    return {f"{kind}/{source.names[row]}" for row in rows}


def _check_weights(study: Study, data: Mapping[str, DataSet]) -> None:
    """Weights that come as a file must fit, tensor by tensor. Raises StudyError."""
    faults = Faults()
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
                faults.add(f"stages.{stage.name}.config.weights", str(error))
    if faults.lines:
        raise StudyError(study.name, faults.lines)


def _check_watched(study: Study, runs: Iterable[Run], data: Mapping[str, DataSet]) -> None:
    """Images to watch must be there. Raises StudyError."""
    faults = Faults()
    for stage, names, dataset in {
        (run.stage, tuple(run.config.get("watch", ())), run.config["dataset"]) for run in runs
    }:
        source = data[dataset].source
        try:
            held_out = [*source.parts["val"], *source.parts["test"]]
            watched_rows(source.names, source.parts["val"], names, held_out)
        except DataError as error:
            faults.add(f"stages.{stage}.config.watch", str(error))
    if faults.lines:
        raise StudyError(study.name, faults.lines)


def _learnt(study: Study) -> set[str]:
    """Names of the data sets that something is trained on."""
    stages = [stage for stage in study.stages if stage.trainable in TRAINABLES]
    return {variant.config.dataset for stage in stages for variant in stage.variants}


def _facts(name: str) -> Callable[[Mapping[str, Any]], tuple[str, bool, str]]:
    if name in PRODUCERS:
        producer = PRODUCERS[name]
        return lambda config: (producer.FIGURES[0], False, producer.FOLDER)
    kind = TRAINABLES[name]
    return lambda config: (kind.select(config)[0], bool(kind.PREDICTS), "")


def build_caches(prepared: Prepared, home: Home, progress: Progress) -> dict[str, Path]:
    """Decode every data set once; returns fingerprint → folder. Raises StudyError.

    What looks at whole pictures gets the list of a data set's files, under `files-<fingerprint>`.
    """
    faults = Faults()
    folders: dict[str, Path] = {}
    learnt = _learnt(prepared.study)
    for name, item in prepared.data.items():
        config = prepared.study.data[name]
        try:
            if not needs_table(item.source):
                listing = home.cache / f"files-{item.fingerprint}.json"
                list_pictures(item.source, config.on_corrupt, listing)
                folders[listing.stem] = listing
                if name not in learnt:
                    continue
            folders[item.fingerprint] = build(
                item.source,
                config,
                item.fingerprint,
                home.cache,
                lambda done, total, name=name: progress(name, done, total),  # type: ignore[misc]
            )
        except DataError as error:
            faults.add(f"data.{name}", str(error))
    if faults.lines:
        raise StudyError(prepared.study.name, faults.lines)
    return folders


def remember(prepared: Prepared, home: Home) -> None:
    """Keep the plan, so that the next one can say what changed."""
    plan = to_plain(prepared.study, prepared.runs, prepared.keys)
    write_json(home.plans / f"{prepared.study.name}.json", plan)


def state_of(store: Store, key: str) -> tuple[State, str]:
    """What the store holds of a Run, and a few words on it."""
    result = store.result(key)
    if result is not None:
        if images := result["facts"].get("images"):
            return "done", f"{images} images"
        return "done", f"{len(result['history'])} epochs, best {result['best_epoch']}"
    epochs, images = store.epochs(key), len(produced(store.folder(key)))
    if epochs or images:
        return "resumable", f"{epochs[-1]} epochs done" if epochs else f"{images} images done"
    return "new", ""


def _place(config: DatasetConfig, root: Path | None) -> str:
    """A short name for where a data set lies."""
    text = f"{config.type} {config.path or root} {config.subfolder}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _previous(home: Home, study: str) -> dict[tuple[str, int], Run]:
    plan = read_json(home.plans / f"{study}.json")
    if plan is None or plan.get("format") != FORMAT:
        return {}
    return {(run.label, run.seed): run for run in from_plain(plan)}


def _weight_files(study: Study) -> dict[str, str]:
    """sha256 of every state-dict file that a stage starts from."""
    found: dict[str, str] = {}
    for stage in study.stages:
        for path in {variant.config.weights for variant in stage.variants}:
            if path not in ("random", "imagenet"):
                with open(path, "rb") as file:
                    found[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
