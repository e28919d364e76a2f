"""Where the data is: read and fingerprint the data sets, build their caches, make the plan."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.code_version import code_version
from orchestrator.faults import Faults, StudyError
from orchestrator.home import Home, read_json, write_json
from orchestrator.plan import (
    FORMAT,
    Inputs,
    Planned,
    Run,
    State,
    examine,
    from_plain,
    make_plan,
    to_plain,
)
from orchestrator.store import Store
from orchestrator.study_file import Study
from trainables.cache import build, fingerprint
from trainables.catalog import TRAINABLES
from trainables.datasets import DataError, DatasetConfig, read
from trainables.source import Source
from trainables.trainable import DataInfo, Trainable
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

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(item.run for item in self.planned)


def prepare(study: Study, data_root: Path | None, home: Home) -> Prepared:
    """Read the data and make the plan; nothing is decoded or trained. Raises StudyError."""
    faults = Faults()
    data: dict[str, DataSet] = {}
    for name, config in study.data.items():
        try:
            source = read(config, data_root)
            manifest = home.cache / f"manifest-{_place(config, data_root)}.json"
            data[name] = DataSet(name, source, fingerprint(source, config, manifest))
        except DataError as error:
            faults.add(f"data.{name}", str(error))
    if faults.lines:
        raise StudyError(study.name, faults.lines)
    inputs = Inputs(
        {name: item.fingerprint for name, item in data.items()},
        _weight_files(study),
        {name: code_version(kind.__module__) for name, kind in TRAINABLES.items()},
        {name: (_select(kind), bool(kind.PREDICTS)) for name, kind in TRAINABLES.items()},
    )
    runs = make_plan(study, inputs)
    _check_fit(study, data)
    _check_watched(study, runs, data)
    store = Store(home.store)
    planned = examine(runs, lambda key: state_of(store, key), _previous(home, study.name))
    return Prepared(study, data, planned)


def _check_fit(study: Study, data: Mapping[str, DataSet]) -> None:
    """Configurations must fit their data. Raises StudyError."""
    faults = Faults()
    for stage in study.stages:
        for config in (variant.config for variant in stage.variants):
            info = DataInfo(data[config.dataset].source.classes, study.data[config.dataset].side)
            try:
                TRAINABLES[stage.trainable].check(config, info)
            except ValueError as error:
                faults.add(f"stages.{stage.name}.config", str(error))
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


def _select(kind: type[Trainable]) -> Callable[[Mapping[str, Any]], str]:
    return lambda config: kind.select(config)[0]


def build_caches(prepared: Prepared, home: Home, progress: Progress) -> dict[str, Path]:
    """Decode every data set once; returns fingerprint → folder. Raises StudyError."""
    faults = Faults()
    folders: dict[str, Path] = {}
    for name, item in prepared.data.items():
        try:
            folders[item.fingerprint] = build(
                item.source,
                prepared.study.data[name],
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
    plan = to_plain(prepared.study, prepared.runs)
    write_json(home.plans / f"{prepared.study.name}.json", plan)


def state_of(store: Store, key: str) -> tuple[State, str]:
    """What the store holds of a Run, and a few words on it."""
    result = store.result(key)
    if result is not None:
        return "done", f"{len(result['history'])} epochs, best {result['best_epoch']}"
    epochs = store.epochs(key)
    if epochs:
        return "resumable", f"{epochs[-1]} epochs done"
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
