"""Run one search on Ray Tune: which trials run at once, with what, and until when."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.tune
from ray.tune.schedulers import TrialScheduler

from orchestrator.execution.resources import wait_for_room
from orchestrator.execution.task import Task
from orchestrator.planning.placement import ResourceRequest
from orchestrator.planning.run import Run
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trial
from orchestrator.tracking.sync import MlflowSync
from orchestrator.tuning.pbt import PbtPopulation
from orchestrator.tuning.ray_tune import TrialEvents, TrialFeed, keep_secrets
from orchestrator.tuning.schedulers import SCHEDULERS, PbtHooks, Setup
from orchestrator.tuning.search_reporter import SearchReporter
from orchestrator.tuning.trial_book import TrialBook
from orchestrator.tuning.trial_worker import TrialSpec, run_trial, to_config

# What Ray Tune reserves for a trial that has several workers. They have processes and resources of
# their own, so it must be no part of a CPU: that part could be the one that a worker lacks.
_CONTROLLER = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class SearchContext:
    """Says where a search runs, and what each of its trials gets."""

    home: Home
    request: ResourceRequest  # of every trial
    slots: int  # trials that run at once
    tables: Mapping[str, Path]  # fingerprint of a data set → folder of its decoded images
    job: str  # id of the submission's Ray job
    max_failures: int  # times that a trial is started again after its process died


class Tuner:
    """Runs what is left of one search on Ray Tune, and records it in `book`."""

    def __init__(
        self, planned: PlannedSearch, context: SearchContext, sync: MlflowSync, last: bool = True
    ) -> None:
        """sync: of this search; last: whether trials that this tuner `lost` are tried by
        no other one."""
        self.planned, self.search, self.context = planned, planned.search, context
        store = Store(context.home.store)
        reporter = SearchReporter(planned, store, sync, context.job)
        self.book = TrialBook(planned, store, reporter, context.slots, last)

    def run(self) -> tuple[str, str]:
        """Run every trial that has not ended. Returns FINISHED or FAILED, and why."""
        name = f"search-{self.planned.key}"
        folder = self.context.home.ray_train / name
        shutil.rmtree(folder, ignore_errors=True)  # Ray Tune must not restore anything
        self.book.send_progress()
        # Ray Tune would repeat the traceback of every trial; the book logs one line of each
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        keep_secrets()
        wait_for_room(self.context.request, f"search {self.planned.stage.name}")
        try:
            self._build(name).fit()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self.book.send_progress()
        return self.book.outcome()

    def config_of(self, trial: Trial) -> dict[str, Any]:
        """Return what Ray Tune passes to the process of a trial."""
        *upstream, run = self.book.runs_of(trial)
        known, context = self.book.known.get(trial.index), self.context
        return to_config(
            TrialSpec(
                trial=trial.index,
                task=self._task(run),
                request=context.request,
                storage=str(context.home.ray_train),
                job=context.job,
                epochs=known.epochs if known else None,
                stall_seconds=60.0 * self.search.stall_minutes,
                upstream=[(self._task(parent), parent.select) for parent in upstream],
            )
        )

    def _task(self, run: Run) -> Task:
        population = self.book.population
        return Task.of(
            run,
            self.context.tables[run.dataset],
            self.context.home.store,
            gpus=self.context.request.gpus,
            tested=False,
            until=population.boundary if population else None,
        )

    def _build(self, name: str) -> "ray.tune.Tuner":
        request, search = self.context.request, self.search
        nested, uses_pbt = request.workers > 1, self.book.population is not None
        samples = search.count + uses_pbt
        feed = TrialFeed(self.book, self.config_of, samples)
        return ray.tune.Tuner(
            ray.tune.with_resources(run_trial, group_of_a_trial(request)),
            tune_config=ray.tune.TuneConfig(
                metric=search.metric,
                mode=search.mode,
                num_samples=samples,
                # all trials of a PBT population exist at once, most of them paused
                max_concurrent_trials=search.count if uses_pbt else self.context.slots,
                search_alg=feed,
                scheduler=self._scheduler(feed),
                # a process that has loaded torch takes the next trial
                reuse_actors=not nested,
                trial_name_creator=str,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=ray.tune.RunConfig(
                name=name,
                storage_path=str(self.context.home.ray_train),
                callbacks=[TrialEvents(self.book)],
                failure_config=ray.tune.FailureConfig(max_failures=self.context.max_failures),
                verbose=0,
            ),
        )

    def _scheduler(self, feed: TrialFeed) -> TrialScheduler:
        population = self.book.population
        hooks = self._pbt_hooks(population, feed) if population else None
        build = SCHEDULERS[self.search.scheduler]
        return build(Setup(self.search, self._most_epochs(), hooks))

    def _pbt_hooks(self, population: PbtPopulation, feed: TrialFeed) -> PbtHooks:
        def evolve(indices: Sequence[int]) -> dict[int, dict[str, Any]]:
            population.evolve(indices, self.book.seconds)
            return {index: self.config_of(self.book.get(index)) for index in indices}

        return PbtHooks(
            lambda: population.boundary, evolve, lambda: feed.all_drawn, self.context.slots
        )

    def _most_epochs(self) -> int:
        """Return the number of epochs of the longest trial."""
        dimension = self.search.space.get("epochs")
        ends = dimension.ends() if dimension else [self.planned.config_of({}).epochs]
        return int(max(ends))


def group_of_a_trial(request: ResourceRequest) -> "ray.tune.PlacementGroupFactory":
    """Return what Ray Tune reserves for a trial."""
    if request.workers > 1:
        return ray.tune.PlacementGroupFactory([_CONTROLLER])
    where = request.selectors()
    return ray.tune.PlacementGroupFactory([request.of_a_worker()], bundle_label_selector=where)
