"""What Ray Tune is set up with: which trials stop early, or wait, and what it keeps quiet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

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


class Asked(Protocol):
    """A search, as Ray Tune knows it."""

    search: Search

    def is_full(self, count: int) -> bool: ...
    def draw(self, index: int) -> Trial | None: ...
    def attempt(self, trial: Trial) -> dict[str, Any]: ...
    def begun(self, index: int) -> None: ...
    def heard(self, index: int, epoch: int, figure: float) -> None: ...
    def ended(self, index: int) -> None: ...
    def struck(self, index: int) -> None: ...
    def failed(self, index: int, error: BaseException | None) -> None: ...


class TrialFeed(Searcher):  # type: ignore[misc]
    """Hands Ray Tune the trials one after the other, from the first."""

    def __init__(self, owner: Asked, samples: int) -> None:
        """samples: as many as Ray Tune asks for. It gives a process up that waits for a trial once
        it has them all: asked for one more than there are, this one keeps it waiting to the end."""
        super().__init__(metric=owner.search.metric, mode=owner.search.mode)
        self._owner, self._next, self._exhausted = owner, 0, False
        self._keeps_waiting = samples > owner.search.count
        self._living: set[str] = set()

    @property
    def all_drawn(self) -> bool:
        """Whether no trial is to come."""
        return self._exhausted or self._next >= self._owner.search.count

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune writes itself down to be restored, which is not done here

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._owner.is_full(self._next):
            return None
        while self._next < self._owner.search.count:
            trial = self._owner.draw(self._next)
            if trial is None:
                break
            self._next += 1
            if trial.key:
                self._living.add(trial_id)
                return self._owner.attempt(trial)
        self._exhausted = True
        if self._keeps_waiting and self._living:
            return None
        return str(Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """The suggestions were told by then, from the checkpoint."""
        self._living.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from its own notes."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search goes on from its own notes")


class TrialEvents(ray.tune.Callback):  # type: ignore[misc]
    """Hears of every trial from Ray Tune."""

    def __init__(self, owner: Asked) -> None:
        self._owner = owner

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._owner.begun(trial.config["trial"])

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        figure = result[self._owner.search.metric]
        self._owner.heard(trial.config["trial"], int(result["epoch"]), float(figure))

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._owner.ended(trial.config["trial"])

    def on_trial_recover(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._owner.struck(trial.config["trial"])

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial) -> None:
        self._owner.failed(trial.config["trial"], trial.get_pickled_error())
