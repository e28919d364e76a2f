"""Population based training (Jaderberg et al., arXiv:1711.09846): all trials train side by side,
and at every boundary the worst go on from copies of the best, with values near theirs.

Everybody waits at a boundary, so what happens there is a matter of the store and of the search's
seed alone: a search that was broken off goes on as if it had not been.
"""

import hashlib
import logging
import math
import random
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.planning.run import Run
from orchestrator.planning.search_plan import PlannedSearch
from orchestrator.sampling.dimension import Dimension, typed
from orchestrator.storage.checkpoints import Store
from orchestrator.storage.files import write_json
from orchestrator.storage.manifest import sync
from orchestrator.storage.trial_log import Trial, Trials, history_of
from trainables.config import as_plain
from trainables.numerics.randomness import derived_seed

log = logging.getLogger("orchestrator")
_FACTORS = (0.8, 1.2)  # of a value that is handed on (the paper's, section 4.1)
_RESAMPLED = 0.25  # of the values are drawn anew instead (section 4.2)


class PbtPopulation:
    """The trials of one search that learn from each other."""

    def __init__(self, planned: PlannedSearch, store: Store, trials: Trials) -> None:
        self.planned, self.search = planned, planned.search
        self.store, self.trials = store, trials

    @property
    def boundary(self) -> int:
        """The epoch after which everybody waits for everybody."""
        return min(self.trials.evolved + self.search.interval_epochs, self.epochs)

    @property
    def epochs(self) -> int:
        return self.planned.config_of({}).epochs

    def running(self, count: int) -> int:
        """How many of the first `count` trials are on their way to the boundary."""
        trials = self.trials.all(count)
        return sum(trial.state == "RUNNING" and trial.epochs < self.boundary for trial in trials)

    def key_of(self, index: int, generation: int = 0) -> str:
        """Of a trial's Run: nobody else's, and another one after it has become another."""
        text = f"{self.planned.key} trial {index} generation {generation}"
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def run_of(self, trial: Trial) -> Run:
        """What the trial's process trains: under its own name, with what has become of it."""
        run = self.planned.run_of(trial.values)
        return replace(run, key=trial.key, config=as_plain(self.planned.config_of(trial.recipe)))

    def evolve(self, indices: Sequence[int], seconds: float) -> None:
        """All of them stand at the boundary: let the worst become like the best. Written down at
        once, so that it happens whole or not at all."""
        standing = [t for i in indices if (t := self.trials.get(i)) is not None]
        epoch = self.boundary
        scores = {trial.index: self._score(trial) for trial in standing}
        order = sorted(standing, key=lambda trial: (scores[trial.index], -trial.index))
        many = min(math.ceil(len(order) * self.search.quantile), len(order) // 2)
        best = order[len(order) - many :]
        heirs: dict[str, Trial] = {}  # key of what it was → what it is
        with ExitStack() as held:
            for trial in order[:many]:
                draw = random.Random(derived_seed("evolve", self.planned.seed, trial.index, epoch))
                heir = self._heir(trial, draw.choice(best), epoch, draw, held)
                if heir is not None:
                    heirs[trial.key] = heir
            self.trials.evolve(list(heirs.values()), epoch, seconds)
        for key in heirs:
            shutil.rmtree(self.store.folder(key), ignore_errors=True)  # nobody needs it

    def _score(self, trial: Trial) -> float:
        """Higher is better; one whose checkpoints are lost is the worst."""
        history = history_of(self.store, trial.key)
        sign = 1 if self.search.mode == "max" else -1
        return sign * history[-1][self.search.metric] if history else -math.inf

    def _heir(
        self, trial: Trial, donor: Trial, epoch: int, draw: random.Random, held: ExitStack
    ) -> Trial | None:
        """A trial that goes on from the donor's weights and optimizer, with values of its own; None
        where they are damaged. held: keeps `clean` from the heir's key, which nothing names yet.
        """
        key = self.key_of(trial.index, len(trial.ancestry) + 1)
        shutil.rmtree(self.store.folder(key), ignore_errors=True)  # of a driver that died over it
        owned = self.store.own(key, f"the search for {trial.label}")
        assert owned is not None  # it is new
        held.enter_context(owned)
        if not adopt(self.store, key, trial.key, donor.key, epoch):
            log.warning("%s cannot go on from %s, whose checkpoint is damaged: it goes on as it is",
                        trial.label, donor.label)  # fmt: skip
            return None
        before = donor.current
        values = self.explored(before, draw)
        new = {name: value for name, value in values.items() if value != before[name]}
        changes = [
            *donor.recipe.get("changes", ()),
            *([{"epoch": epoch + 1, **new}] if new else []),
        ]
        log.info("%s goes on from %s at epoch %d: %s", trial.label, donor.label, epoch,
                 ", ".join(f"{name} {before[name]} → {value}" for name, value in new.items())
                 or "with its values")  # fmt: skip
        heir = replace(
            trial,
            key=key,
            became={**donor.recipe, "changes": changes},
            ancestry=[*trial.ancestry, {"epoch": epoch, "trial": donor.index, "values": values}],
        )
        history = history_of(self.store, key)
        return heir.with_history(history, self.search.metric, self.search.mode)

    def explored(self, values: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
        """Values near the given ones, within the space."""
        kinds = self.planned.kinds
        found: dict[str, Any] = {}
        for name, axis in self.search.space.items():
            if axis.choice is not None:
                place = _moved(axis.choice.index(values[name]), len(axis.choice), draw)
                found[name] = typed(kinds[name], axis.choice[place])
            else:
                found[name] = _perturbed(axis, values[name], kinds[name] is int, draw)
        return found


def adopt(store: Store, key: str, heir_of: str, source: str, epoch: int) -> bool:
    """Begin a key as the heir of another one, whose logs and attempts it goes on with, from where
    `source` stands: its checkpoints up to an epoch. Returns whether that one verifies; where not,
    nothing is begun."""
    folder = store.folder(key)
    parts = [path for path in store.folder(source).glob("[es]*_*") if _epoch(path) <= epoch]
    for path in (*parts, store.folder(heir_of) / "logs"):
        copy = folder / path.name
        copy.mkdir(parents=True)
        for file in path.glob("*"):
            shutil.copyfile(file, copy / file.name)
        sync(copy)
    write_json(folder / "attempt", {"attempt": store.attempt(heir_of)})
    newest = store.newest(key)
    if newest is None or newest.epoch != epoch:
        shutil.rmtree(folder)
        return False
    return True


def _epoch(path: Path) -> int:
    """Of a checkpoint's folder."""
    return int(path.name.partition("_")[2])


def _moved(place: int, count: int, draw: random.Random) -> int:
    """Of an ordered choice: a neighbour, or any."""
    if draw.random() < _RESAMPLED:
        return draw.randrange(count)
    return min(count - 1, max(0, place + draw.choice((-1, 1))))


def _perturbed(axis: Dimension, value: float, whole: bool, draw: random.Random) -> float | int:
    low, high = axis.bounds
    if draw.random() >= _RESAMPLED:
        drawn = value * draw.choice(_FACTORS)
    elif axis.log is not None:
        drawn = math.exp(draw.uniform(math.log(low), math.log(high)))
    else:
        drawn = draw.uniform(low, high)
    return axis.rounded(min(high, max(low, round(drawn) if whole else drawn)), whole)
