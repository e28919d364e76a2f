"""Connect Ray Tune with a search: give it the trials, and pass on what happens to them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from orchestrator.config.errors import one_line
from orchestrator.storage.trial_log import Trial
from orchestrator.tuning.trial_book import TrialBook

_COLOR = re.compile(r"\x1b\[[0-9;]*m")  # of Ray's tracebacks
_CALL = re.compile(r"^  File .*\n(?:    .*\n)*", re.MULTILINE)  # one call of a traceback


def keep_secrets() -> None:
    """Keep the driver's AWS keys out of the description of every trial's process.

    Ray Tune would write them there, and so into Ray's logs. A process that needs such keys has
    them from its own node.
    """
    copied = class_cache.ENV_VARS_TO_PROPAGATE
    copied -= {name for name in copied if name.startswith("AWS_")}


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
        """Return whether every trial was given to Ray Tune."""
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
        self._book.on_trial_error(trial.config["trial"], cause_of(Path(trial.error_file)))


def cause_of(file: Path) -> str:
    """Return in a line why a trial failed last, from the file that Ray Tune writes beside it.

    Not from `get_pickled_error`: that reads a copy, which a thread of Ray Tune (2.60) may be making
    just then, and an exception with a constructor of its own cannot be read back at all.
    """
    text = _COLOR.sub("", file.read_text(encoding="utf-8", errors="replace"))
    *_, last = re.split(r"^Failure # \d+ .*\n", text, flags=re.MULTILINE)
    *calls, said = _CALL.split(last)
    if not calls:
        _, _, detail = last.partition("Worker exit detail: ")
        detail = detail.partition("Some common causes")[0]
        return one_line(f"its process died: {' '.join(detail.split())}".rstrip(": "))
    # below the last call: the type with its module, and a message of some lines
    return one_line(re.sub(r"^(\w+\.)+", "", " ".join(said.split())))
