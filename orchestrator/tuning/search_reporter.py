"""Report the progress and the trials of one search to MLflow, through the sync of `tracking`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.config.search_schema import owner_of
from orchestrator.planning.run import Run
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import State as TrialState
from orchestrator.storage.trial_log import Trial, counts, ranked
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tracking.sync import MlflowSync
from orchestrator.tracking.tags import Tag
from orchestrator.tuning.pbt import trial_key
from trainables.engine.early_stopping import has_ended
from trainables.schemas.registry import TRAINABLE_SCHEMAS
from trainables.training_config import TrainableConfig


class SearchReporter:
    """Tells the sync which Runs of a search it must follow, and how each of them ended.

    No method waits for MLflow: a thread of the sync sends what it is given.
    """

    def __init__(self, planned: PlannedSearch, store: Store, sync: MlflowSync, job: str) -> None:
        """sync: the sync of this search, whose trials are its children in MLflow; job: id of the
        submission's Ray job."""
        self.planned, self.store, self.sync, self.job = planned, store, sync, job
        self._followed: set[str] = set()  # keys of upstream Runs that the sync follows

    def on_trial_start(self, trial: Trial, runs: Sequence[Run]) -> None:
        """Follow a trial that starts. runs: what it trains, upstream Runs first, its own last."""
        *upstream, run = runs
        for parent in upstream:
            if parent.key not in self._followed:
                self._followed.add(parent.key)
                self.sync.follow(parent)
        upstream_values = _upstream_values(trial)
        self.sync.follow(run, None, upstream_values, trial.lineage, self._first_key(trial))

    def on_trial_end(self, trial: Trial, runs: Sequence[Run]) -> None:
        """Report how a trial ended, and how its upstream Runs stand. runs: as above."""
        *upstream, run = runs
        for parent in upstream:
            self._end_upstream(parent, trial.state)
        if trial.state == "FAILED":
            end = RunEnd(State.FAILED, trial.reason)
        else:
            outcome = "finished" if trial.state == "FINISHED" else "stopped_early"
            end = RunEnd(State.FINISHED, trial.reason, outcome)
        self.sync.end(run, end, _upstream_values(trial), trial.lineage, self._first_key(trial))

    def send_progress(self, trials: Sequence[Trial]) -> None:
        """Send the number of trials in each state, and the best one, as a tag of the search."""
        best = next(iter(ranked(trials, self.planned.search.mode)), None)
        progress = {
            "counts": counts(trials),
            "best": best and {"label": best.label, "figure": best.figure, "values": best.current},
        }
        self.sync.set_tags({Tag.PROGRESS: json.dumps(progress)})

    def _first_key(self, trial: Trial) -> str:
        """Return the key that a trial of a population had at first; empty for any other trial."""
        if self.planned.search.scheduler != "pbt":
            return ""
        return trial_key(self.planned, trial.index)

    def _end_upstream(self, run: Run, state: TrialState) -> None:
        """Report an upstream Run of a trial that ended in `state`. Another trial may still train
        it, and `clean` may have removed its checkpoints by now."""
        failed = self.store.run(run.key).ended(self.job)
        if state in ("FINISHED", "STOPPED"):
            self.sync.end(run, RunEnd(State.FINISHED, "", "finished"))
        elif failed is not None:
            self.sync.end(run, RunEnd(State(failed[0]), failed[1]))
        elif has_ended(self.store.run(run.key).history(), _config_of(run)):
            self.sync.end(run, RunEnd(State.FINISHED, "", "finished"))
        else:
            self._followed.discard(run.key)  # followed again when the next trial trains it
            self.sync.end(run, RunEnd(State.KILLED, "the process of its trial died"))


def _config_of(run: Run) -> TrainableConfig:
    return TRAINABLE_SCHEMAS[run.trainable].Config.model_validate(dict(run.config))


def _upstream_values(trial: Trial) -> dict[str, Any]:
    """Return the values that the search drew for upstream stages; their names have the stage:
    `byol.lr`."""
    values: Mapping[str, Any] = trial.values
    return {name: value for name, value in values.items() if owner_of(name)[0]}
