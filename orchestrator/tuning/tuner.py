"""One search on Ray Tune: which trials run, when, and what is written down of each."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray.tune
from pydantic import ValidationError
from ray.tune.schedulers import TrialScheduler

from orchestrator.config.search_schema import owner_of
from orchestrator.execution.failures import one_line, root_cause
from orchestrator.execution.resources import ResourceRequest, wait_for_room
from orchestrator.execution.task import Task
from orchestrator.planning.run import Run
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.storage.checkpoints import Store
from orchestrator.storage.home import Home
from orchestrator.storage.trial_log import State, Trial, Trials, causes, counts, history_of, ranked
from orchestrator.tracking.sync import Mirror
from orchestrator.tuning.pbt import Population
from orchestrator.tuning.ray_tune import (
    SynchronousPBT,
    TrialEvents,
    TrialFeed,
    keep_secrets,
    scheduler_of,
)
from orchestrator.tuning.sampler import Sampler
from orchestrator.tuning.trial_worker import Attempt, plain, try_on_ray
from trainables.engine.early_stopping import has_ended
from trainables.tasks.registry import TRAINABLES
from trainables.training_config import TrainableConfig

log = logging.getLogger("orchestrator")
# of a trial whose workers have processes of their own: any part of a CPU could be the one they lack
_NESTED = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class SearchContext:
    """Where a search runs, and what it gets."""

    home: Home
    share: ResourceRequest  # of every trial
    slots: int  # trials at once
    tables: Mapping[str, Path]  # fingerprint of a data set → folder of its decoded images
    job: str
    max_failures: int  # starts again after a trial's process died


class SearchRun:
    """One submission's part of a search: it goes on where the last one stopped."""

    def __init__(
        self, planned: PlannedSearch, place: SearchContext, mirror: Mirror, last: bool = True
    ) -> None:
        """mirror: of this search, whose trials are its children. last: nobody tries again what
        this one has `lost`."""
        self.planned, self.search, self.place = planned, planned.search, place
        self.mirror, self.store = mirror, Store(place.home.store)
        self.trials = Trials(self.store.folder(planned.key))
        self.known = {t.index: t for t in self.trials.all() if t.state in ("FINISHED", "STOPPED")}
        self.suggestions = Sampler(self.search, planned.kinds, planned.seed)
        evolves = self.search.scheduler == "pbt"
        self.population = Population(planned, self.store, self.trials) if evolves else None
        self._followed: set[str] = set()  # Runs that trials start from, and train
        self._last, self._begun = last, set[int]()
        self.lost: list[int] = []  # trials whose process was dead before it had begun
        self._started, self._before = time.monotonic(), self.trials.seconds
        for trial in self.trials.all():
            self.suggestions.known(dict(trial.values))
        for trial in self.known.values():
            self._learn(trial)

    def _learn(self, trial: Trial) -> None:
        # what a population comes to is no matter of what was drawn
        if trial.figure is not None and self.population is None:
            self.suggestions.tell(trial.values, trial.figure)

    @property
    def seconds(self) -> float:
        """That the search has taken, all its submissions together."""
        return self._before + time.monotonic() - self._started

    def run(self) -> tuple[str, str]:
        """Try what is left to try. Returns FINISHED or FAILED, and why."""
        name = f"search-{self.planned.key}"
        shutil.rmtree(self.place.home.ray_train / name, ignore_errors=True)  # nothing is restored
        self._say()
        # what trials die of is said once, by us
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        keep_secrets()
        wait_for_room(self.place.share, f"search {self.planned.stage.name}")
        try:
            self._tuner(name).fit()
        finally:
            shutil.rmtree(self.place.home.ray_train / name, ignore_errors=True)
            self._say()
        return self._ending()

    def tell_all(self) -> None:
        """MLflow lacks what was found before: in another study, or while it was away."""
        self._say()
        for trial in self.trials.all(self.search.count):
            if trial.key:
                self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        *ahead, run = self._runs_of(trial)
        for each in ahead:
            self._tell_ahead(each, trial.state)
        state, outcome = "FINISHED", "finished" if trial.state == "FINISHED" else "stopped_early"
        if trial.state == "FAILED":
            state, outcome = "FAILED", ""
        others = _of_others(trial.values)
        self.mirror.end(run, state, trial.reason, outcome, others, trial.ancestry)

    def _tell_ahead(self, run: Run, state: State) -> None:
        """Of what a trial that has ended in that state started from. Others may still train it; by
        now its checkpoints may have been cleaned away."""
        failed = self.store.ended(run.key, self.place.job)
        if state in ("FINISHED", "STOPPED"):
            self.mirror.end(run, "FINISHED", "", "finished")
        elif failed is not None:
            self.mirror.end(run, failed[0], failed[1])
        elif has_ended(history_of(self.store, run.key), self._form(run)):
            self.mirror.end(run, "FINISHED", "", "finished")
        else:
            self._followed.discard(run.key)  # who trains it next has it followed
            self.mirror.end(run, "KILLED", "the process of its trial died")

    @staticmethod
    def _form(run: Run) -> TrainableConfig:
        return TRAINABLES[run.trainable].Config.model_validate(dict(run.config))

    def _tuner(self, name: str) -> "ray.tune.Tuner":
        share, search = self.place.share, self.search
        nested, evolves = share.workers > 1, self.population is not None
        samples = search.count + evolves
        searcher = TrialFeed(self, samples)
        whole = {"CPU": float(share.cpus)} | ({"GPU": share.gpus} if share.gpus else {})
        needs = ray.tune.PlacementGroupFactory([_NESTED if nested else whole])
        return ray.tune.Tuner(
            ray.tune.with_resources(try_on_ray, needs),
            tune_config=ray.tune.TuneConfig(
                metric=search.metric,
                mode=search.mode,
                num_samples=samples,
                # of a population all are there, most of them waiting
                max_concurrent_trials=search.count if evolves else self.place.slots,
                search_alg=searcher,
                scheduler=self._scheduler(searcher),
                # a process that has loaded torch takes the next trial
                reuse_actors=not nested,
                trial_name_creator=str,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=ray.tune.RunConfig(
                name=name,
                storage_path=str(self.place.home.ray_train),
                callbacks=[TrialEvents(self)],
                failure_config=ray.tune.FailureConfig(max_failures=self.place.max_failures),
                verbose=0,
            ),
        )

    def _scheduler(self, searcher: TrialFeed) -> TrialScheduler:
        population = self.population
        if population is None:
            return scheduler_of(self.search, self._most_epochs())

        def evolve(indices: Sequence[int]) -> dict[int, dict[str, Any]]:
            population.evolve(indices, self.seconds)
            return {index: self.attempt(self._trial(index)) for index in indices}

        slots = self.place.slots
        return SynchronousPBT(lambda: population.due, evolve, lambda: searcher.all_drawn, slots)

    def _most_epochs(self) -> int:
        axis = self.search.space.get("epochs")
        ends = axis.ends() if axis else [self.planned.stage.variants[0].config.epochs]  # type: ignore[union-attr]
        return int(max(ends))

    def is_full(self, count: int) -> bool:
        """Whether no trial more may begin, of a population of which `count` have. Ray Tune's own
        limit would count those that wait at the boundary."""
        return bool(self.population and self.population.at_work(count) >= self.place.slots)

    def draw(self, index: int) -> Trial | None:
        """Trial `index`: as it was drawn before, or anew; None when there is none. It is FAILED
        where its values do not fit together."""
        before = self.trials.get(index)
        if before is not None:
            return before
        values = self.suggestions.draw(index)
        if values is None:
            self.trials.exhausted()
            return None
        try:
            *ahead, run = self.planned.runs_of(values)
            keys = [each.key for each in ahead]
            key = self.population.key_of(index) if self.population else run.key
            trial = Trial(index, values, key, run.label, ahead=keys)
        except ValidationError as error:
            why = "; ".join(str(item["msg"]) for item in error.errors())
            log.warning("search %s: %s: %s", self.planned.stage.name, values, why)
            trial = Trial(index, values, "", "", "FAILED", reason=why, ended=self.seconds)
        self._put(trial)
        return trial

    def attempt(self, trial: Trial) -> dict[str, Any]:
        """What the trial's process is to do."""
        *before, run = self._runs_of(trial)
        known, place = self.known.get(trial.index), self.place
        return plain(
            Attempt(
                trial=trial.index,
                task=self._task(run),
                share=place.share,
                storage=str(place.home.ray_train),
                job=place.job,
                epochs=known.epochs if known else None,
                stall_seconds=60.0 * self.search.stall_minutes,
                ahead=[(self._task(each), each.select) for each in before],
            )
        )

    def _task(self, run: Run) -> Task:
        return Task(
            key=run.key,
            attempt=0,
            label=run.label,
            trainable=run.trainable,
            config=run.config,
            seed=run.seed,
            table=str(self.place.tables[run.dataset]),
            store=str(self.place.home.store),
            parent=run.parent,
            parent_label=run.parent_label,
            gpus=self.place.share.gpus,
            tested=False,
            until=self.population.due if self.population else None,
        )

    def _runs_of(self, trial: Trial) -> list[Run]:
        """What a trial trains, parents first."""
        if self.population:
            return [self.population.run_of(trial)]
        return self.planned.runs_of(trial.values)

    def begun(self, index: int) -> None:
        """A trial runs."""
        trial = self._trial(index)
        self._begun.add(index)
        if index not in self.known:
            *ahead, run = self._runs_of(trial)
            for each in ahead:
                if each.key not in self._followed:
                    self._followed.add(each.key)
                    self.mirror.follow(each)
            self.mirror.follow(run, drawn=_of_others(trial.values), ancestry=trial.ancestry)
            self._put(replace(trial, state="RUNNING", reason=""))

    def heard(self, index: int, epoch: int, figure: float) -> None:
        """An epoch of a trial is over."""
        trial = self._trial(index)
        if index in self.known:
            return
        sign = 1 if self.search.mode == "max" else -1
        better = trial.figure is None or sign * figure > sign * trial.figure
        best = {"figure": figure, "best": epoch} if better else {}
        self._put(replace(trial, epochs=max(epoch, trial.epochs), **best))  # type: ignore[arg-type]

    def ended(self, index: int) -> None:
        """A trial trained to its end or was stopped early: its checkpoint says which."""
        trial = self._trial(index)
        if index not in self.known:
            history = history_of(self.store, trial.key)
            whole = has_ended(history, self.planned.config_of(trial.values))
            trial = trial.with_history(history, self.search.metric, self.search.mode)
            state: State = "FINISHED" if whole else "STOPPED"
            trial = replace(trial, state=state, reason="", ended=self.seconds)
            self._learn(trial)
            self._put(trial)
        self._tell(trial)

    def struck(self, index: int) -> None:
        """A trial's process died; Ray Tune starts it again."""
        self._begun.discard(index)

    def failed(self, index: int, error: BaseException | None) -> None:
        """A trial failed for good, as far as Ray Tune goes: it gives up at once what it hands to a
        process that has died while it waited for a trial (ray 2.60)."""
        trial = self._trial(index)
        told = self.store.ended(trial.key, self.place.job)
        if not (told or self._last or index in self._begun):
            log.warning(
                "%s seed %d: its process died before it began", trial.label, self.planned.seed
            )
            self.lost.append(index)
            return
        why = told[1] if told else one_line(root_cause(error)) if error else "its process died"
        log.error("%s seed %d: failed %s", trial.label, self.planned.seed, why)
        trial = replace(trial, state="FAILED", reason=why, ended=self.seconds)
        self._put(trial)
        self._tell(trial)

    def _trial(self, index: int) -> Trial:
        trial = self.trials.get(index)
        assert trial is not None  # it was drawn
        return trial

    def _put(self, trial: Trial) -> None:
        self.trials.put(trial, self.seconds)
        self._say()

    def _say(self) -> None:
        """How far the search is, for whoever follows."""
        trials = self.trials.all(self.search.count)
        best = next(iter(ranked(trials, self.search.mode)), None)
        said = {
            "counts": counts(trials),
            "best": best and {"label": best.label, "figure": best.figure, "values": best.current},
        }
        self.mirror.say({"progress": json.dumps(said)})

    def _ending(self) -> tuple[str, str]:
        trials = self.trials.all(self.search.count)
        failures = causes(trials)
        if not self.trials.have_found(self.search.count):
            why = f"{failures[0][0]} ({failures[0][1]} of {len(trials)} trials)" if failures else ""
            return "FAILED", f"no trial came to its end: {why}" if why else "it was broken off"
        hit = sum(number for _, number in failures)
        return "FINISHED", f"{hit} trials failed, most with: {failures[0][0]}" if hit else ""


def _of_others(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if owner_of(name)[0]}
