"""What Ray Tune asks of a search, and what it tells it."""

from collections.abc import Mapping
from typing import Any, Protocol

import ray.tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from orchestrator.search_file import Search
from orchestrator.trials import Trial


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


class ByTurns(Searcher):  # type: ignore[misc]
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


class Ear(ray.tune.Callback):  # type: ignore[misc]
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
