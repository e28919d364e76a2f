"""Decide whether a Run whose process died is tried again.

Deaths of each kind are counted apart, and the count begins anew when the Run has saved something
since the last death. So a Run that loses a node a day goes on for a month, and one that dies again
and again at the same place is given up.
"""

from collections import Counter

from orchestrator.execution.failures import Death, Outcome
from orchestrator.needs.deaths import MaxFailures
from orchestrator.storage.manifest import finished_images
from orchestrator.storage.run_records import RunFolder


class Retries:
    """Counts the deaths of one Run in one submission."""

    def __init__(self, run: RunFolder, most: MaxFailures) -> None:
        """most: deaths of each kind, one after the other, after which the Run goes on."""
        self._run, self._most = run, most
        self._deaths: Counter[Death] = Counter()
        self._saved = saved_parts(run)

    def goes_on(self, outcome: Outcome) -> bool:
        """Count a death, and return whether the Run is tried again."""
        saved = saved_parts(self._run)
        if saved > self._saved:
            self._deaths.clear()
        self._saved = saved
        self._deaths[outcome.death] += 1
        return self._deaths[outcome.death] <= self._most.of(outcome.death)

    def explain(self, outcome: Outcome) -> str:
        """Return why a Run is given up: the last death, and how many there were."""
        deaths = self._deaths[outcome.death]
        if deaths <= 1:
            return outcome.reason
        return f"{outcome.reason}; {deaths} times without a new checkpoint between them"


def saved_parts(run: RunFolder) -> int:
    """Return how much of a Run is saved: the newest epoch with a checkpoint, plus a producer's
    finished images."""
    return max(run.epochs(), default=0) + len(finished_images(run.path))
