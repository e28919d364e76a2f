"""Schedulers of Ray Tune, one table: they stop trials early, or make them wait for each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from orchestrator.config.search_schema import SchedulerName, Search


@dataclass(frozen=True)
class PbtHooks:
    """Lists what SynchronousPBT asks the search."""

    boundary: Callable[[], int]  # the epoch after which trials wait for each other
    # indices of the trials at the boundary → how each continues: index → configuration
    evolve: Callable[[Sequence[int]], Mapping[int, dict[str, Any]]]
    all_drawn: Callable[[], bool]  # whether every trial was given to Ray Tune
    slots: int  # trials that run at once


@dataclass(frozen=True)
class Setup:
    """Holds what a scheduler is built from."""

    search: Search
    epochs: int  # of the longest trial
    pbt: PbtHooks | None = None  # for `scheduler: pbt` alone


def run_to_the_end(setup: Setup) -> TrialScheduler:
    """Start trials in order and stop none."""
    return FIFOScheduler()


def asha(setup: Setup) -> TrialScheduler:
    """Keep one trial in `reduction_factor` at each rung; the first rung is `grace_epochs`. Li et
    al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys 2020)."""
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        max_t=setup.epochs,
        grace_period=min(setup.search.grace_epochs, setup.epochs),
        reduction_factor=setup.search.reduction_factor,
    )


def median(setup: Setup) -> TrialScheduler:
    """Stop a trial whose best figure is below the median of the others' running means. Golovin et
    al., "Google Vizier" (KDD 2017)."""
    return MedianStoppingRule(
        time_attr="epoch", grace_period=setup.search.grace_epochs, min_samples_required=3
    )


def pbt(setup: Setup) -> TrialScheduler:
    """Train all trials side by side; at every boundary the worst copy the best."""
    if setup.pbt is None:
        raise ValueError("scheduler pbt needs the hooks of a population")
    return SynchronousPBT(setup.pbt)


class SynchronousPBT(FIFOScheduler):  # type: ignore[misc]
    """Runs every trial up to a boundary, `slots` of them at once. When all wait there, `evolve`
    says how each continues.

    Ray Tune's own PopulationBasedTraining cannot do this: it takes no searcher, draws from the
    process's random generator, and waits for ever if the last trial before a boundary fails.
    """

    def __init__(self, hooks: PbtHooks) -> None:
        super().__init__()
        self._hooks = hooks
        self._epochs: dict[str, int] = {}  # Ray Tune's id of a trial → epochs that it has trained

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune saves its scheduler to restore it later, which is never done here

    def on_trial_result(
        self, tune_controller: TuneController, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Pause a trial that has reached the boundary and has not ended."""
        self._epochs[trial.trial_id] = int(result["epoch"])
        if result["ended"] or result["epoch"] != self._hooks.boundary():
            return str(self.CONTINUE)
        tune_controller.pause_trial(trial, should_checkpoint=False)  # the store has its checkpoint
        return str(self.NOOP)

    def choose_trial_to_run(self, tune_controller: TuneController) -> TuneTrial | None:
        """Return the trial that starts or continues next; None while there is none."""
        living = [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
        waiting = [trial for trial in living if self._waits(trial)]
        if living and len(waiting) == len(living) and self._hooks.all_drawn():
            configs = self._hooks.evolve([trial.config["trial"] for trial in living])
            for trial in living:
                trial.set_config(configs[trial.config["trial"]])
            waiting = []
        ready = [trial for trial in living if trial not in waiting]
        active = [trial for trial in ready if trial.status != TuneTrial.PAUSED]
        paused = [trial for trial in ready if trial.status == TuneTrial.PAUSED]
        if paused and len(active) < self._hooks.slots:
            return min(paused, key=self._trained)
        return next((trial for trial in ready if trial.status == TuneTrial.PENDING), None)

    def _waits(self, trial: TuneTrial) -> bool:
        """Return whether a trial waits at the boundary. A trial whose process died and that Ray
        Tune starts again is not paused, wherever it was."""
        return trial.status == TuneTrial.PAUSED and self._trained(trial) >= self._hooks.boundary()

    def _trained(self, trial: TuneTrial) -> int:
        return self._epochs.get(trial.trial_id, 0)


# The schedulers that `scheduler:` of a search may name. To add one: write its function here, add
# its line here and its name to SchedulerName in config/search_schema.py, which cannot import Ray.
SCHEDULERS: dict[SchedulerName, Callable[[Setup], TrialScheduler]] = {
    "none": run_to_the_end,
    "asha": asha,
    "median": median,
    "pbt": pbt,
}
