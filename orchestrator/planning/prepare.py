"""Where the data is: read and fingerprint the data sets, build their caches, make the plan."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Study
from orchestrator.planning.code_version import BATCH_INFERENCE, TRAINING, code_version
from orchestrator.planning.data_checks import (
    DataSet,
    check_apart,
    check_fit,
    check_watched,
    check_weights,
)
from orchestrator.planning.plan import (
    FORMAT,
    Planned,
    State,
    digest,
    examine,
    from_plain,
    make_plan,
    to_plain,
)
from orchestrator.planning.run import Inputs, Run
from orchestrator.planning.search_plan import (
    PlannedSearch,
    apply_winners,
    pending_stages,
    plan_searches,
)
from orchestrator.storage.artifacts import produced
from orchestrator.storage.files import read_json, write_json
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trials, ranked
from trainables.data.datasets import DatasetConfig, read
from trainables.dataset import DataError
from trainables.loading.decoded_cache import build, fingerprint
from trainables.loading.image_files import list_pictures, needs_table
from trainables.metrics import metric_of
from trainables.monitoring.probe import probe
from trainables.optimizers.registry import OPTIMIZERS
from trainables.schedules.registry import SCHEDULES
from trainables.tasks.registry import PRODUCERS, TRAINABLES

Progress = Callable[[str, int, int], None]


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
        return pending_stages(self.study)

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(item.run for item in self.planned)


def prepare(study: Study, data_root: Path | None, home: Home) -> Prepared:
    """Read the data and make the plan; nothing is decoded or trained. Raises StudyError."""
    errors = ErrorList()
    data: dict[str, DataSet] = {}
    learnt = _learnt(study)
    for name, config in study.data.items():
        try:
            source = read(config, data_root, cut=name in learnt)
            manifest = home.cache / f"manifest-{_place(config, data_root)}.json"
            data[name] = DataSet(name, source, fingerprint(source, config, manifest))
        except DataError as error:
            errors.add(f"data.{name}", str(error))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    inputs = Inputs(
        {name: item.fingerprint for name, item in data.items()},
        _weight_files(study),
        code_of,
        {name: _facts(name) for name in TRAINABLES | PRODUCERS},
    )
    runs = make_plan(study, inputs)
    asked, store = digest(study, runs, inputs), Store(home.store)
    searches: dict[str, PlannedSearch] = {}
    while ready := plan_searches(study, inputs, runs):
        searches |= {search.stage.name: search for search in ready}
        found = [search for search in ready if winners(store, search)]
        if not found:
            break
        for search in found:
            study = apply_winners(study, search.stage.name, winners(store, search))
        runs = make_plan(study, inputs)
    check_fit(study, data)
    check_apart(study, data)
    check_weights(study, data)
    check_watched(study, runs, data)
    planned = examine(runs, lambda key: state_of(store, key), _previous(home, study.name))
    return Prepared(study, data, planned, tuple(searches.values()), asked)


def winners(store: Store, planned: PlannedSearch) -> list[Mapping[str, Any]]:
    """The best configurations of a search, the best first; none while it has not ended."""
    search, trials = planned.search, Trials(store.run(planned.key).path)
    if not trials.have_found(search.count):
        return []
    best = search.then.best if search.then else 1
    return [trial.recipe for trial in ranked(trials.all(search.count), search.mode)[:best]]


def _learnt(study: Study) -> set[str]:
    """Names of the data sets that something is trained on."""
    stages = [stage for stage in study.stages if stage.trainable in TRAINABLES]
    return {variant.config.dataset for stage in stages for variant in stage.variants}


def code_of(task: str, config: Mapping[str, Any]) -> str:
    """The version of the code that decides the figures of a Run of a trainable or producer."""
    if task in PRODUCERS:
        return code_version(BATCH_INFERENCE, PRODUCERS[task].__module__)
    kind = TRAINABLES[task]
    chosen = (OPTIMIZERS[config["optimizer"]], SCHEDULES[config["schedule"]])
    modules = [TRAINING, kind.__module__, *(function.__module__ for function in chosen)]
    if kind.PROBED:
        modules.append(probe.__module__)
    stop = config["early_stopping"]
    return code_version(*modules, choice=metric_of(stop["metric"]).mode if stop else "")


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
    errors = ErrorList()
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
            errors.add(f"data.{name}", str(error))
    if errors.lines:
        raise StudyError(prepared.study.name, errors.lines)
    return folders


def remember(prepared: Prepared, home: Home) -> None:
    """Keep the plan, so that the next one can say what changed."""
    plan = to_plain(prepared.study, prepared.runs, prepared.keys)
    write_json(home.plans / f"{prepared.study.name}.json", plan)


def state_of(store: Store, key: str) -> tuple[State, str]:
    """What the store holds of a Run, and a few words on it."""
    result = store.run(key).result()
    if result is not None:
        if images := result["facts"].get("images"):
            return "done", f"{images} images"
        return "done", f"{len(result['history'])} epochs, best {result['best_epoch']}"
    epochs, images = store.run(key).epochs(), len(produced(store.run(key).path))
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
