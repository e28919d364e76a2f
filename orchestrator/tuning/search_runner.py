"""Run the searches of a submission: each has an MLflow run, with its trials as children."""

import json
import logging
import time
from collections.abc import Mapping

from orchestrator.planning.plan import json_digest
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.reporting.comparison import State
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun
from orchestrator.tracking.mlflow_writer import Tracker
from orchestrator.tracking.sync import DRAIN_SECONDS, MlflowSync, retry_mlflow
from orchestrator.tracking.tags import Kind, Tag
from orchestrator.tuning.report import write_search
from orchestrator.tuning.trial_book import TrialBook
from orchestrator.tuning.tuner import SearchContext, Tuner

log = logging.getLogger("orchestrator")
_POLL_SECONDS = 1.0


def _run_all_trials(
    planned: PlannedSearch, context: SearchContext, sync: MlflowSync
) -> tuple[TrialBook, tuple[State, str]]:
    """Run a search on Ray Tune, again while it loses trials to processes that died before a trial
    began. Returns its book, and its state with the reason."""
    for left in range(context.max_failures, -1, -1):
        tuner = Tuner(planned, context, sync, last=left == 0)
        state, reason = tuner.run()
        if not tuner.book.lost:
            break
    return tuner.book, (State(state), reason)


class SearchRunner:
    """Runs the searches of one submission, one after the other."""

    def __init__(self, tracker: Tracker, submission: TrackedRun, facts: Mapping[str, str]) -> None:
        """facts: tags that every MLflow run of the submission carries."""
        self.tracker, self.submission, self.facts = tracker, submission, facts
        # stage of a search that has ended → FINISHED, FAILED or BLOCKED, and why
        self.ended: dict[str, tuple[State, str]] = {}
        self.sent = True  # whether MLflow has everything

    def block(self, planned: PlannedSearch, parent: str) -> None:
        """Record that a search cannot begin. parent: label of the Run that did not finish."""
        log.error("search %s: blocked, its parent %s did not finish", planned.stage.name, parent)
        self.ended[planned.stage.name] = (State.BLOCKED, f"{parent} did not finish")

    def run(self, planned: PlannedSearch, context: SearchContext, already_done: bool) -> None:
        """Run the trials that have not ended, and send what MLflow lacks. already_done: every
        trial has ended, and only results are sent to MLflow."""
        stage, store = planned.stage.name, Store(context.home.store)
        run = retry_mlflow(lambda: self._open(planned))
        if already_done and run.status == State.FINISHED:
            self.ended[stage] = (State.FINISHED, "")
            return
        while (owned := store.run(planned.key).acquire(f"study {self.facts[Tag.STUDY]}")) is None:
            log.info("search %s: waits for another study that runs the same search", stage)
            time.sleep(_POLL_SECONDS)
        with owned:
            facts = {**self.facts, Tag.SEARCH_KEY: planned.key}
            sync = MlflowSync(self.tracker, store, run, facts, Kind.TRIAL)
            sync.start()
            try:
                if already_done:
                    outcome = (State.FINISHED, "")
                    book = Tuner(planned, context, sync).book
                    book.send_all()
                else:
                    log.info("search %s: %d trials", stage, planned.search.count)
                    book, outcome = _run_all_trials(planned, context, sync)
            finally:
                self.sent &= sync.stop(DRAIN_SECONDS)
        log.info("search %s: %s %s", stage, *outcome)
        self.ended[stage] = outcome
        if self.sent:
            retry_mlflow(lambda: self._close(planned, run, book, outcome))

    def _close(
        self, planned: PlannedSearch, run: TrackedRun, book: TrialBook, outcome: tuple[State, str]
    ) -> None:
        write_search(self.tracker, run, planned, book.drawn())
        state, reason = outcome
        self.tracker.writer.set_tags(run.run_id, {Tag.REASON: reason})
        self.tracker.writer.set_status(run.run_id, state)

    def _open(self, planned: PlannedSearch) -> TrackedRun:
        """Return the search's MLflow run: the one that an earlier driver of the submission made, or
        a new one."""
        search, stage = planned.search, planned.stage.name
        request = json_digest([planned.key, search.count])
        for child in self.tracker.reader.children(self.submission):
            if child.tags.get(Tag.KIND) == Kind.SEARCH and child.tags.get(Tag.REQUEST) == request:
                if child.status != State.FINISHED:
                    self.tracker.writer.set_tags(child.run_id, {Tag.REASON: ""})
                    self.tracker.writer.set_status(child.run_id, State.RUNNING)
                return child
        tags: dict[str, str] = {
            **self.facts,
            Tag.KIND: Kind.SEARCH,
            Tag.STAGE: stage,
            Tag.LABEL: f"search {stage}",
            Tag.SEED: str(planned.seed),
            Tag.SEARCH_KEY: planned.key,
            Tag.REQUEST: request,
        }
        run_id = self.tracker.writer.create_run(
            self.submission.experiment_id, f"search {stage}", tags, self.submission.run_id
        )
        spec = search.model_dump(mode="json", exclude={"space", "then"})
        space = {
            f"space.{name}": json.dumps(axis.model_dump(mode="json", exclude_none=True))
            for name, axis in search.space.items()
        }
        self.tracker.writer.log_params(run_id, {**spec, **space, "seed": planned.seed})
        return self.tracker.reader.run(run_id)
