"""What Ray Tune is set up with: which trials stop early, or wait, and what it keeps quiet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray.tune
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import Searcher

from orchestrator.config.search_schema import Search
from orchestrator.storage.trial_log import Trial
from orchestrator.tuning.trial_book import TrialBook


def keep_secrets() -> None:
    """Ray Tune would write the driver's AWS keys into the description of every trial's process, and
    so into Ray's logs; a process has them from its own node, where it needs them."""
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied -= {name for name in copied if name.startswith("AWS_")}


def scheduler_of(search: Search, epochs: int) -> TrialScheduler:
    """Ray Tune's own. epochs: of the longest trial.

    asha: Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020).
    median: Golovin et al., "Google Vizier" (KDD 2017).
    """
    if search.scheduler == "asha":
        return AsyncHyperBandScheduler(
            time_attr="epoch",
            max_t=epochs,
            grace_period=min(search.grace_epochs, epochs),
            reduction_factor=search.reduction_factor,
        )
    if search.scheduler == "median":
        return MedianStoppingRule(
            time_attr="epoch", grace_period=search.grace_epochs, min_samples_required=3
        )
    return FIFOScheduler()


class SynchronousPBT(FIFOScheduler):  # type: ignore[misc]
    """Lets trials train up to a boundary one after the other, as there is room. When all wait
    there, `evolve` says how each goes on.

    Ray Tune's own PopulationBasedTraining takes no searcher, draws from the process's generator,
    and waits for ever where the last trial to reach a boundary fails.
    """

    def __init__(
        self,
        due: Callable[[], int],
        evolve: Callable[[Sequence[int]], Mapping[int, dict[str, Any]]],
        all_drawn: Callable[[], bool],
        slots: int,
    ) -> None:
        """due: the epoch of the boundary; evolve: indices → index and configuration of each;
        all_drawn: whether no trial is to come; slots: trials at once."""
        super().__init__()
        self._due, self._evolve, self._all_drawn, self._slots = due, evolve, all_drawn, slots
        self._epochs: dict[str, int] = {}  # as far as each has come

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune writes itself down to be restored, which is not done here

    def on_trial_result(
        self, tune_controller: TuneController, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        self._epochs[trial.trial_id] = int(result["epoch"])
        if result["ended"] or result["epoch"] != self._due():
            return str(self.CONTINUE)
        tune_controller.pause_trial(trial, should_checkpoint=False)  # the store has it
        return str(self.NOOP)

    def choose_trial_to_run(self, tune_controller: TuneController) -> TuneTrial | None:
        living = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        waiting = [trial for trial in living if self._waits(trial)]
        if living and len(waiting) == len(living) and self._all_drawn():
            configs = self._evolve([trial.config["trial"] for trial in living])
            for trial in living:
                trial.set_config(configs[trial.config["trial"]])
            waiting = []
        ready = [trial for trial in living if trial not in waiting]
        at_work = [trial for trial in ready if trial.status != TuneTrial.PAUSED]
        paused = [trial for trial in ready if trial.status == TuneTrial.PAUSED]
        if paused and len(at_work) < self._slots:
            return min(paused, key=self._come)
        return next((trial for trial in ready if trial.status == TuneTrial.PENDING), None)

    def _waits(self, trial: TuneTrial) -> bool:
        """At the boundary. One that Ray Tune starts again after its process died has been there."""
        return trial.status == TuneTrial.PAUSED and self._come(trial) >= self._due()

    def _come(self, trial: TuneTrial) -> int:
        return self._epochs.get(trial.trial_id, 0)


class TrialFeed(Searcher):  # type: ignore[misc]
    """Gives Ray Tune the trials of a search, in the order of their indices."""

    def __init__(
        self, book: TrialBook, config_of: Callable[[Trial], dict[str, Any]], samples: int
    ) -> None:
        """config_of: trial → what its process is given; samples: trials that Ray Tune asks for.

        Once Ray Tune has them all, it ends a process that waits for a trial. With one sample more
        than there are trials, this feed makes Ray Tune keep such processes to the end.
        """
        super().__init__(metric=book.search.metric, mode=book.search.mode)
        self._book, self._config_of = book, config_of
        self._next, self._exhausted = 0, False
        self._keeps_processes = samples > book.search.count
        self._living: set[str] = set()  # Ray Tune's ids of trials that have not ended

    @property
    def all_drawn(self) -> bool:
        """Whether every trial was given to Ray Tune."""
        return self._exhausted or self._next >= self._book.search.count

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune saves its searcher to restore it later, which is never done here

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of the next trial; None for "ask again later"."""
        if self._book.is_full(self._next):
            return None
        while self._next < self._book.search.count:
            trial = self._book.draw(self._next)
            if trial is None:
                break
            self._next += 1
            if trial.key:
                self._living.add(trial_id)
                return self._config_of(trial)
        self._exhausted = True
        if self._keeps_processes and self._living:
            return None
        return str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that a trial has ended. The sampler learned its figure from the book by then."""
        self._living.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the trial log holds all that a search needs to continue."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError(
            "a search continues from its trial log, not from Ray Tune's files"
        )


class TrialEvents(ray.tune.Callback):  # type: ignore[misc]
    """Passes every event of a trial from Ray Tune to the book."""

    def __init__(self, book: TrialBook) -> None:
        self._book = book

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as for TrialFeed

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._book.on_trial_start(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        figure = float(result[self._book.search.metric])
        self._book.on_epoch(trial.config["trial"], int(result["epoch"]), figure)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._book.on_trial_complete(trial.config["trial"])

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._book.on_trial_restart(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._book.on_trial_error(trial.config["trial"], trial.get_pickled_error())
