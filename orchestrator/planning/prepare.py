"""Read and fingerprint the data of a study, make its plan, build the caches of its images.

Runs where the data is: in the command, or in the driver on the cluster.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.config.errors import ErrorList, StudyError
from orchestrator.config.study_schema import Study
from orchestrator.planning.code_version import (
    BATCH_INFERENCE,
    PROBE,
    TRAINING,
    VersionMemory,
    code_version,
    own_code_version,
)
from orchestrator.planning.plan import (
    FORMAT,
    PlannedRun,
    State,
    UnknownPlan,
    from_plain,
    make_plan,
    plan_digest,
    plan_states,
    to_plain,
)
from orchestrator.planning.run import Inputs, Run
from orchestrator.planning.search_plan import (
    PlannedSearch,
    apply_winners,
    best_configurations,
    pending_stages,
    plan_searches,
)
from orchestrator.storage.files import read_json, write_json
from orchestrator.storage.home import Home
from orchestrator.storage.manifest import finished_images
from orchestrator.storage.run_records import Store
from orchestrator.study_data.checks import check_fit, check_watched, check_weights
from orchestrator.study_data.data_sets import DataSet, trained_on
from orchestrator.study_data.reading import Progress, read_data
from orchestrator.study_data.seed_cuts import (
    by_written_name,
    with_cuts,
    words_on_cuts,
    words_on_splits,
    written_name,
)
from orchestrator.study_data.transfers import near_remarks
from trainables.backbones import code_of
from trainables.dataset import DataError
from trainables.loading.decoded_cache import build
from trainables.loading.image_files import needs_table, write_image_list
from trainables.loading.image_table import fault
from trainables.metrics import metric_of
from trainables.optimizers.registry import OPTIMIZERS
from trainables.own_code.names import is_own, module_of
from trainables.schedules.registry import SCHEDULES
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS
from trainables.tasks.registry import BUILT_IN, PRODUCERS
from trainables.training_config import TrainableConfig

log = logging.getLogger(__name__)


def unseen(name: str, done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Prepared:
    """A study together with its data and its plan."""

    study: Study
    data: Mapping[str, DataSet]
    planned: tuple[PlannedRun, ...]
    searches: tuple[PlannedSearch, ...] = ()  # those that ended, and those that can begin
    request_digest: str = ""  # of the plan before any search has ended: names what was asked for
    stage_remarks: tuple[str, ...] = ()  # what a reader should know of stages, a line each
    notes: tuple[str, ...] = ()  # what the data has settled in the study, a line each

    @property
    def remarks(self) -> list[str]:
        """Return what a reader should know of the data sets and stages, a line each."""
        lines = by_written_name({name: item.remarks for name, item in self.data.items()})
        said = [f"data.{name}: {line}" for name, listed in lines.items() for line in listed]
        return [*said, *self.stage_remarks]

    @property
    def keys(self) -> dict[str, str]:
        """Return stage → key of its search, where it is known."""
        return {search.stage.name: search.key for search in self.searches}

    @property
    def pending(self) -> list[str]:
        """Return the stages that have no Runs yet, because they wait for a search."""
        return pending_stages(self.study)

    @property
    def runs(self) -> tuple[Run, ...]:
        """Return the Runs of the plan, parents first."""
        return tuple(item.run for item in self.planned)

    @property
    def cautions(self) -> dict[str, list[str]]:
        """Return data set → why its figures may be too good; without data sets that have none."""
        return by_written_name({name: item.cautions for name, item in self.data.items()})

    def near_remarks(self, home: Home, compute: bool = False) -> list[str]:
        """Return a warning for each part of a data set that looks nearly like training images, as
        far as images are decoded. compute: whether what is not known yet is looked for."""
        found = by_written_name(near_remarks(self.study, self.data, home.cache, compute))
        return [f"data.{name}: {line}" for name, lines in found.items() for line in lines]


def prepare(
    study: Study, data_root: Path | None, home: Home, progress: Progress = unseen
) -> Prepared:
    """Read the data and make the plan. Nothing is decoded or trained. Raises StudyError.

    data_root: that of `--data`; progress: called with a data set's name, files read, files in all.
    """
    store = Store(home.store)
    on_cuts, warnings = words_on_cuts(study)
    study = with_cuts(study)
    data = read_data(study, data_root, home.cache, progress)
    study, notes = _settled(study, data)
    inputs = _inputs_of(study, data, home)
    runs = make_plan(study, inputs)
    request_digest = plan_digest(study, runs, inputs)
    study, runs, searches = _with_finished_searches(study, runs, inputs, store)
    fit, loaded = check_fit(study, data), check_weights(study, data)
    check_watched(study, ((run.stage, run.config) for run in runs), data)
    remarks = tuple(dict.fromkeys((*warnings, *fit, *loaded)))
    previous = _previous_runs(home, study.name)
    planned = plan_states(runs, lambda key: stored_state(store, key), previous)
    notes = (*on_cuts, *words_on_splits(data), *notes)
    return Prepared(study, data, planned, searches, request_digest, remarks, notes)


def _settled(study: Study, data: Mapping[str, DataSet]) -> tuple[Study, tuple[str, ...]]:
    """Settle what configurations leave to the data, such as `select: auto`. Returns the study and a
    line on each stage for which `auto` has become something. Raises StudyError."""
    errors, notes, stages = ErrorList(), dict[str, None](), []
    for stage in study.stages:
        variants = []
        for variant in stage.variants:
            config = variant.config
            if isinstance(config, TrainableConfig):
                labelled = data[config.dataset].source.labelled
                try:
                    config = TRAINABLE_SCHEMAS[stage.trainable].settled(config, labelled)
                except ValueError as error:
                    errors.add(f"stages.{stage.name}.config.select", str(error))
                if getattr(variant.config, "select", None) == "auto":
                    notes[f"{stage.name}: {_choice(config, labelled)}"] = None
            variants.append(replace(variant, config=config))
        stages.append(replace(stage, variants=tuple(variants)))
    if errors.lines:
        raise StudyError(study.name, errors.lines)
    return replace(study, stages=tuple(stages)), tuple(notes)


def _choice(config: Any, labelled: bool) -> str:
    """Say what `select: auto` has become, and why."""
    if config.select == "knn":
        return (
            "select is knn: later stages take the epoch with the best kNN accuracy, measured every "
            f"{config.probe_every} epochs"
        )
    reason = "no epoch is probed" if labelled else f"{config.dataset} has no classes to probe with"
    return f"select is last: later stages take the last epoch, since {reason}"


def _inputs_of(study: Study, data: Mapping[str, DataSet], home: Home) -> Inputs:
    """Collect what decides the keys of Runs beside the study."""
    file = home.cache / "code-versions.json"
    memory = VersionMemory(read_json(file) or {}, partial(write_json, file))
    return Inputs(
        {name: item.fingerprint for name, item in data.items()},
        _weight_hashes(study),
        partial(run_code_version, compute=memory.version),
        {name: _facts_of(name) for name in {stage.trainable for stage in study.stages}},
    )


def _with_finished_searches(
    study: Study, runs: tuple[Run, ...], inputs: Inputs, store: Store
) -> tuple[Study, tuple[Run, ...], tuple[PlannedSearch, ...]]:
    """Replace the stages of searches that have ended by their best configurations.

    One search may wait for another one, so this goes on until none has ended anew. Returns the
    study, its Runs, and every search that has ended or can begin.
    """
    searches: dict[str, PlannedSearch] = {}
    while ready := plan_searches(study, inputs, runs):
        searches |= {search.stage.name: search for search in ready}
        ended = [search for search in ready if best_configurations(store, search)]
        if not ended:
            break
        for search in ended:
            study = apply_winners(study, search.stage.name, best_configurations(store, search))
        runs = make_plan(study, inputs)
    return study, runs, tuple(searches.values())


def run_code_version(
    task: str, config: Mapping[str, Any], compute: Callable[..., str] = code_version
) -> str:
    """Return the version of the code that decides the figures of a Run.

    task: name of a trainable or producer; config: its configuration, whole; compute: `code_version`
    or what remembers its results.
    """
    if task in PRODUCERS:
        return compute(BATCH_INFERENCE, PRODUCERS.module(task))
    schema = TRAINABLE_SCHEMAS[task]
    schedule = SCHEDULES[config["schedule"]].__module__
    own = [module_of(name) for name in (task, config["backbone"]) if is_own(name)]
    tasks = [] if is_own(task) else [BUILT_IN.module(task)]
    modules = [TRAINING, *tasks, OPTIMIZERS.module(config["optimizer"]), schedule]
    if schema.PROBED or config.get("keep_features"):
        modules.append(PROBE)
    built_by, built_with = code_of(config["backbone"])
    modules += built_by
    stop = config["early_stopping"]
    decisive = [schema.select(config), *([stop["metric"]] if stop else [])]
    choices: list[str] = [*(metric_of(name).mode for name in decisive), *built_with]
    for version, imported in map(own_code_version, own):
        modules += imported
        choices.append(version)
    return compute(*dict.fromkeys(modules), choice=" ".join(choices))


def _facts_of(name: str) -> Callable[[Mapping[str, Any]], tuple[str, bool, str]]:
    """Return the function from a configuration to `select`, `predicts` and `artifacts` of a Run."""
    if name in PRODUCER_SCHEMAS:
        producer = PRODUCER_SCHEMAS[name]
        return lambda config: (producer.FIGURES[0], False, producer.FOLDER)
    schema = TRAINABLE_SCHEMAS[name]
    return lambda config: (schema.select(config), bool(schema.PREDICTS), "")


def build_caches(
    prepared: Prepared,
    home: Home,
    progress: Progress,
    verified: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Decode every data set once. Returns fingerprint → folder. Raises StudyError.

    A data set of files also gets a list of them for producers and masks, `files-<fingerprint>`.
    progress: called with the name of a data set, images done, images in all. verified: fingerprint
    → build id of caches that the command has just read whole; these are not read again.
    """
    errors = ErrorList()
    folders: dict[str, Path] = {}
    built: dict[str, Path] = {}  # data set as written → the cache of its first fold
    learned = trained_on(prepared.study)
    for name, item in prepared.data.items():
        config = prepared.study.data[name]
        try:
            if not needs_table(item.source):
                listing = home.cache / f"files-{item.fingerprint}.json"
                write_image_list(item.source, config.on_corrupt, listing)
                folders[listing.stem] = listing
                if name not in learned:
                    continue
            cache = home.cache / item.fingerprint
            first = built.setdefault(written_name(name), cache)
            if fault(cache) is None and (verified or {}).get(cache.name) == _build_id(cache):
                folders[item.fingerprint] = cache
                continue
            folders[item.fingerprint] = build(
                item.source,
                config,
                item.fingerprint,
                home.cache,
                lambda done, total, name=name: progress(name, done, total),  # type: ignore[misc]
                first if first != cache else None,
            )
        except DataError as error:
            errors.add(f"data.{written_name(name)}", str(error))
    if errors.lines:
        raise StudyError(prepared.study.name, errors.lines)
    return folders


def build_ids(folders: Mapping[str, Path]) -> dict[str, str]:
    """Return fingerprint → build id of the caches among the folders that `build_caches` returns."""
    return {name: _build_id(path) for name, path in folders.items() if path.is_dir()}


def _build_id(cache: Path) -> str:
    """Name a build of a cache: 16 hexadecimal digits over meta.json, which holds the size and the
    checksum of every file."""
    return hashlib.sha256((cache / "meta.json").read_bytes()).hexdigest()[:16]


def store_plan(prepared: Prepared, home: Home) -> None:
    """Write the plan into the home, so that the next one can say what changed."""
    file = home.plans / f"{prepared.study.name}.json"
    write_json(file, to_plain(prepared.study, prepared.runs, prepared.keys))


def stored_state(store: Store, key: str) -> tuple[State, str]:
    """Return the state of a Run in the store, and a few words on how far it is."""
    result = store.run(key).result()
    if result is not None:
        if images := result["facts"].get("images"):
            return "done", f"{images} images"
        return "done", f"{len(result['history'])} epochs, best {result['best_epoch']}"
    epochs, images = store.run(key).epochs(), len(finished_images(store.run(key).path))
    if epochs or images:
        return "resumable", f"{epochs[-1]} epochs done" if epochs else f"{images} images done"
    return "new", ""


def _previous_runs(home: Home, study: str) -> tuple[Run, ...]:
    """Return the Runs of the study's last plan; none if it is damaged, which is said, or another
    version wrote it."""
    plan = read_json(home.plans / f"{study}.json")
    if plan is None or plan.get("format") != FORMAT:
        return ()
    try:
        return from_plain(plan)
    except UnknownPlan as error:
        log.warning("%s: %s", home.plans / f"{study}.json", error)
        return ()


def _weight_hashes(study: Study) -> dict[str, str]:
    """Return file → sha256 of every state-dict file that a stage starts from."""
    hashes: dict[str, str] = {}
    for stage in study.stages:
        for path in {item.config.weights for item in stage.variants} - {"random", "imagenet"}:
            with open(path, "rb") as file:
                hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
