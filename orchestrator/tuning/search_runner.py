"""The searches of a submission, each with its MLflow run, its trials below it, and its figures."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from orchestrator.planning.plan import digest_of
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.storage.checkpoints import Store
from orchestrator.tracking.mlflow_client import TrackedRun, Tracker, TrackingError
from orchestrator.tracking.sync import Mirror
from orchestrator.tuning.report import write_search
from orchestrator.tuning.trial_book import TrialBook
from orchestrator.tuning.tuner import SearchContext, Tuner

log = logging.getLogger("orchestrator")
Answer = TypeVar("Answer")
DRAIN_SECONDS = 600.0  # MLflow may be away for a while, and takes one to come back
_LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 2.0


def patiently(call: Callable[[], Answer]) -> Answer:
    """Try for some minutes while MLflow does not answer. Raises TrackingError after that, or at
    once when it refuses."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while True:
        try:
            return call()
        except TrackingError as error:
            if error.answered or time.monotonic() > deadline:
                raise
            log.warning("MLflow does not answer; it is tried again: %s", error)
            time.sleep(_AGAIN_SECONDS)


def _tried(
    planned: PlannedSearch, place: SearchContext, mirror: Mirror
) -> tuple[TrialBook, tuple[str, str]]:
    """A search that has tried all there is to try, and how it ended; again after it has lost
    trials to dead processes."""
    for left in range(place.max_failures, -1, -1):
        tuner = Tuner(planned, place, mirror, last=left == 0)
        ended = tuner.run()
        if not tuner.book.lost:
            break
    return tuner.book, ended


class SearchRunner:
    """Carries out the searches of one submission."""

    def __init__(self, tracker: Tracker, submission: TrackedRun, facts: Mapping[str, str]) -> None:
        """facts: tags that everything of the submission carries."""
        self.tracker, self.submission, self.facts = tracker, submission, facts
        self.ended: dict[str, tuple[str, str]] = {}  # stage → FINISHED, FAILED or BLOCKED; why
        self.sent = True  # whether MLflow has all

    def block(self, planned: PlannedSearch, parent: str) -> None:
        """A search whose parent did not finish."""
        log.error("search %s: blocked, its parent %s did not finish", planned.stage.name, parent)
        self.ended[planned.stage.name] = ("BLOCKED", f"{parent} did not finish")

    def carry_out(self, planned: PlannedSearch, place: SearchContext, found: bool) -> None:
        """Try what is left to try, and send what MLflow lacks. found: nothing is."""
        stage, store = planned.stage.name, Store(place.home.store)
        run = patiently(lambda: self._open(planned))
        if found and run.status == "FINISHED":
            self.ended[stage] = ("FINISHED", "")
            return
        while (owned := store.own(planned.key, f"study {self.facts['study']}")) is None:
            log.info("search %s: waits for another study, which does the same", stage)
            time.sleep(_LOOK_SECONDS)
        with owned:
            facts = {**self.facts, "search_key": planned.key}
            mirror = Mirror(self.tracker, store, run, facts, "trial")
            mirror.start()
            try:
                if found:
                    book, ended = Tuner(planned, place, mirror).book, ("FINISHED", "")
                    book.send_all()
                else:
                    log.info("search %s: %d trials", stage, planned.search.count)
                    book, ended = _tried(planned, place, mirror)
            finally:
                self.sent &= mirror.stop(DRAIN_SECONDS)
        log.info("search %s: %s %s", stage, *ended)
        self.ended[stage] = ended
        if self.sent:
            patiently(lambda: self._close(planned, run, book, ended))

    def _close(
        self, planned: PlannedSearch, run: TrackedRun, book: TrialBook, ended: tuple[str, str]
    ) -> None:
        write_search(self.tracker, run, planned, book.drawn())
        self.tracker.set_tags(run.run_id, {"reason": ended[1]})
        self.tracker.set_status(run.run_id, ended[0])

    def _open(self, planned: PlannedSearch) -> TrackedRun:
        """The search's MLflow run: the submission's own from before, or a new one."""
        search, stage = planned.search, planned.stage.name
        asked = digest_of([planned.key, search.count])
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
