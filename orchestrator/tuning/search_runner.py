"""Run the searches of a submission: each has an MLflow run, with its trials as children."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from orchestrator.planning.plan import json_digest
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.storage.run_records import Store
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker, TrackingError
from orchestrator.tracking.sync import Mirror
from orchestrator.tuning.report import write_search
from orchestrator.tuning.trial_book import TrialBook
from orchestrator.tuning.tuner import SearchContext, Tuner

log = logging.getLogger("orchestrator")
Answer = TypeVar("Answer")
DRAIN_SECONDS = 600.0  # how long MLflow may be away before its results are given up
_POLL_SECONDS = 1.0
_RETRY_SECONDS = 2.0


def retry_mlflow(call: Callable[[], Answer]) -> Answer:
    """Make a call, again and again for DRAIN_SECONDS while MLflow cannot be reached. Raises
    TrackingError after that, or at once when MLflow refuses the call."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        try:
            return call()
        except TrackingError as error:
            if error.answered or time.monotonic() > deadline:
                raise
            log.warning("MLflow cannot be reached, retrying in %g s: %s", _RETRY_SECONDS, error)
            time.sleep(_RETRY_SECONDS)


def _run_all_trials(
    planned: PlannedSearch, context: SearchContext, mirror: Mirror
) -> tuple[TrialBook, tuple[str, str]]:
    """Run a search on Ray Tune, again while it loses trials to processes that died before a trial
    began. Returns its book, and its state with the reason."""
    for left in range(context.max_failures, -1, -1):
        tuner = Tuner(planned, context, mirror, last=left == 0)
        outcome = tuner.run()
        if not tuner.book.lost:
            break
    return tuner.book, outcome


class SearchRunner:
    """Runs the searches of one submission, one after the other."""

    def __init__(self, tracker: Tracker, submission: TrackedRun, facts: Mapping[str, str]) -> None:
        """facts: tags that every MLflow run of the submission carries."""
        self.tracker, self.submission, self.facts = tracker, submission, facts
        # stage of a search that has ended → FINISHED, FAILED or BLOCKED, and why
        self.ended: dict[str, tuple[str, str]] = {}
        self.sent = True  # whether MLflow has everything

    def block(self, planned: PlannedSearch, parent: str) -> None:
        """Record that a search cannot begin. parent: label of the Run that did not finish."""
        log.error("search %s: blocked, its parent %s did not finish", planned.stage.name, parent)
        self.ended[planned.stage.name] = ("BLOCKED", f"{parent} did not finish")

    def run(self, planned: PlannedSearch, context: SearchContext, already_done: bool) -> None:
        """Run the trials that have not ended, and send what MLflow lacks. already_done: every
        trial has ended, and only results are sent to MLflow."""
        stage, store = planned.stage.name, Store(context.home.store)
        run = retry_mlflow(lambda: self._open(planned))
        if already_done and run.status == "FINISHED":
            self.ended[stage] = ("FINISHED", "")
            return
        while (owned := store.run(planned.key).acquire(f"study {self.facts['study']}")) is None:
            log.info("search %s: waits for another study that runs the same search", stage)
            time.sleep(_POLL_SECONDS)
        with owned:
            facts = {**self.facts, "search_key": planned.key}
            mirror = Mirror(self.tracker, store, run, facts, "trial")
            mirror.start()
            try:
                if already_done:
                    book, outcome = Tuner(planned, context, mirror).book, ("FINISHED", "")
                    book.send_all()
                else:
                    log.info("search %s: %d trials", stage, planned.search.count)
                    book, outcome = _run_all_trials(planned, context, mirror)
            finally:
                self.sent &= mirror.stop(DRAIN_SECONDS)
        log.info("search %s: %s %s", stage, *outcome)
        self.ended[stage] = outcome
        if self.sent:
            retry_mlflow(lambda: self._close(planned, run, book, outcome))

    def _close(
        self, planned: PlannedSearch, run: TrackedRun, book: TrialBook, outcome: tuple[str, str]
    ) -> None:
        write_search(self.tracker, run, planned, book.drawn())
        state, reason = outcome
        self.tracker.set_tags(run.run_id, {"reason": reason})
        self.tracker.set_status(run.run_id, state)

    def _open(self, planned: PlannedSearch) -> TrackedRun:
        """Return the search's MLflow run: the one that an earlier driver of the submission made, or
        a new one."""
        search, stage = planned.search, planned.stage.name
        asked = json_digest([planned.key, search.count])
        for child in self.tracker.children(self.submission):
            if child.tags.get("kind") == "search" and child.tags.get("asked") == asked:
                if child.status != "FINISHED":
                    self.tracker.set_tags(child.run_id, {"reason": ""})
                    self.tracker.set_status(child.run_id, "RUNNING")
                return child
        tags = {**self.facts, "kind": "search", "stage": stage, "label": f"search {stage}",
                "seed": str(planned.seed), "search_key": planned.key, "asked": asked}  # fmt: skip
        run_id = self.tracker.create_run(
            self.submission.experiment_id, f"search {stage}", tags, self.submission.run_id
        )
        spec = search.model_dump(mode="json", exclude={"space", "then"})
        space = {
            f"space.{name}": json.dumps(axis.model_dump(mode="json", exclude_none=True))
            for name, axis in search.space.items()
        }
        self.tracker.log_params(run_id, {**spec, **space, "seed": planned.seed})
        return self.tracker.run(run_id)
