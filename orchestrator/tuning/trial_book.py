"""Keep the record of the trials of one search: draw them, follow them, write down how they end."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from orchestrator.planning.run import Run
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.sampling.registry import SAMPLERS
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import State, Trial, Trials, causes
from orchestrator.tuning.pbt import PbtPopulation
from orchestrator.tuning.search_reporter import SearchReporter
from trainables.engine.early_stopping import has_ended

log = logging.getLogger("orchestrator")


class TrialBook:
    """Draws the trials of one search and records every event of each in the trial log.

    A book that is opened again continues where the last driver stopped. Trials are named by their
    index, counted from 0 in the order in which they are drawn.
    """

    def __init__(
        self, planned: PlannedSearch, store: Store, reporter: SearchReporter, slots: int, last: bool
    ) -> None:
        """slots: trials that run at once; last: whether no later try of this submission starts
        trials whose process died before they began."""
        self.planned, self.search, self.store = planned, planned.search, store
        self.trials = Trials(store.run(planned.key).path)
        self.reporter, self._slots, self._last = reporter, slots, last
        # trials that ended well under an earlier driver: index → trial
        self.known = {t.index: t for t in self.trials.all() if t.state in ("FINISHED", "STOPPED")}
        self.sampler = SAMPLERS[self.search.algorithm](
            planned.space, self.search.mode, planned.seed
        )
        uses_pbt = self.search.scheduler == "pbt"
        self.population = PbtPopulation(planned, store, self.trials) if uses_pbt else None
        self.lost: list[int] = []  # trials whose process died before they began
        self._running: set[int] = set()
        self._opened, self._seconds_before = time.monotonic(), self.trials.seconds
        for trial in self.trials.all():
            self.sampler.add_drawn(dict(trial.values))
        for trial in self.known.values():
            self._tell_sampler(trial)

    @property
    def seconds(self) -> float:
        """Return the seconds that the search has taken, over all its submissions."""
        return self._seconds_before + time.monotonic() - self._opened

    def is_full(self, count: int) -> bool:
        """Return whether a PBT population of which `count` trials have begun may begin no other
        one now. Ray Tune's own limit would count those that wait at the boundary."""
        return bool(self.population and self.population.running(count) >= self._slots)

    def draw(self, index: int) -> Trial | None:
        """Return a trial, as it was drawn before or anew; None when no configuration is left.

        A trial whose values do not fit together is FAILED and has no key.
        """
        earlier = self.trials.get(index)
        if earlier is not None:
            return earlier
        values = self.sampler.draw(index)
        if values is None:
            self.trials.exhausted()
            return None
        try:
            *upstream, run = self.planned.runs_of(values)
            key = self.population.key_of(index) if self.population else run.key
            keys = [parent.key for parent in upstream]
            trial = Trial(index, values, key, run.label, upstream=keys)
        except ValidationError as error:
            reason = "; ".join(str(item["msg"]) for item in error.errors())
            log.warning("search %s: %s: %s", self.planned.stage.name, values, reason)
            trial = Trial(index, values, "", "", "FAILED", reason=reason, ended=self.seconds)
        self._write(trial)
        return trial

    def get(self, index: int) -> Trial:
        """Return a trial that was drawn. Raises LookupError for any other."""
        trial = self.trials.get(index)
        if trial is None:
            raise LookupError(f"search {self.planned.stage.name} has not drawn trial {index}")
        return trial

    def runs_of(self, trial: Trial) -> list[Run]:
        """Return the Runs that a trial trains, upstream Runs first, its own last."""
        if self.population:
            return [self.population.run_of(trial)]
        return self.planned.runs_of(trial.values)

    def on_trial_start(self, index: int) -> None:
        """Record that the process of a trial runs."""
        trial = self.get(index)
        self._running.add(index)
        if index not in self.known:
            self.reporter.on_trial_start(trial, self.runs_of(trial))
            self._write(replace(trial, state="RUNNING", reason=""))

    def on_epoch(self, index: int, epoch: int, figure: float) -> None:
        """Record an epoch of a trial. figure: the search's metric after it."""
        trial = self.get(index)
        if index in self.known:
            return
        sign = 1 if self.search.mode == "max" else -1
        if trial.figure is None or sign * figure > sign * trial.figure:
            trial = replace(trial, figure=figure, best=epoch)
        self._write(replace(trial, epochs=max(epoch, trial.epochs)))

    def on_trial_complete(self, index: int) -> None:
        """Record that a trial trained to its end or was stopped early: its checkpoint says
        which."""
        trial = self.get(index)
        if index not in self.known:
            history = self.store.run(trial.key).history()
            whole = has_ended(history, self.planned.config_of(trial.values))
            trial = trial.with_history(history, self.search.metric, self.search.mode)
            state: State = "FINISHED" if whole else "STOPPED"
            trial = replace(trial, state=state, reason="", ended=self.seconds)
            self._tell_sampler(trial)
            self._write(trial)
        self._report_end(trial)

    def on_trial_restart(self, index: int) -> None:
        """Record that the process of a trial died and that Ray Tune starts another one."""
        self._running.discard(index)

    def on_trial_error(self, index: int, cause: str) -> None:
        """Record that Ray Tune gave a trial up. cause: what its process ended with.

        It does so at once when it gives a trial to a process that died while it was idle (Ray
        2.60). Such a trial is `lost`, and is tried again unless this is the `last` try.
        """
        trial, seed = self.get(index), self.planned.seed
        ended = self.store.run(trial.key).ended(self.reporter.job)
        if not (ended or self._last or index in self._running):
            log.warning("%s seed %d: its process died before the trial began", trial.label, seed)
            self.lost.append(index)
            return
        reason = ended[1] if ended else cause
        log.error("%s seed %d: failed: %s", trial.label, seed, reason)
        trial = replace(trial, state="FAILED", reason=reason, ended=self.seconds)
        self._write(trial)
        self._report_end(trial)

    def send_all(self) -> None:
        """Report every trial again: MLflow may lack what was recorded in another study, or while
        it was away."""
        self.send_progress()
        for trial in self.drawn():
            if trial.key:
                self._report_end(trial)

    def send_progress(self) -> None:
        """Report how far the search is."""
        self.reporter.send_progress(self.drawn())

    def drawn(self) -> Sequence[Trial]:
        """Return the trials of this search, without those of an earlier, longer one."""
        return self.trials.all(self.search.count)

    def outcome(self) -> tuple[str, str]:
        """Return FINISHED or FAILED, and why."""
        trials = self.drawn()
        failures = causes(trials)
        if not self.trials.have_found(self.search.count):
            if not failures:
                return "FAILED", "it was interrupted before all of its trials had ended"
            cause, number = failures[0]
            return "FAILED", f"no trial came to its end: {cause} ({number} of {len(trials)} trials)"
        failed = sum(number for _, number in failures)
        if not failed:
            return "FINISHED", ""
        return "FINISHED", f"{failed} trials failed, most with: {failures[0][0]}"

    def _tell_sampler(self, trial: Trial) -> None:
        # what a trial of PBT reaches comes from many values, not from those that were drawn
        if trial.figure is not None and self.population is None:
            self.sampler.tell(dict(trial.values), trial.figure)

    def _write(self, trial: Trial) -> None:
        self.trials.put(trial, self.seconds)
        self.send_progress()

    def _report_end(self, trial: Trial) -> None:
        self.reporter.on_trial_end(trial, self.runs_of(trial))
