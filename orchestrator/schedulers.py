"""What Ray Tune is set up with: which trials stop early, or wait, and what it keeps quiet."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.search_file import Search


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


class Rounds(FIFOScheduler):  # type: ignore[misc]
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
