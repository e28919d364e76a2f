"""Population based training (Jaderberg et al., arXiv:1711.09846): all trials train side by side,
and at every boundary the worst ones continue from copies of the best, with values near theirs.

All trials wait at a boundary. So what happens there depends on the store and on the search's seed
alone, and a search that was interrupted continues as if it had not been.
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
from orchestrator.storage.files import sync_folder, write_json
from orchestrator.storage.run_records import Store
from orchestrator.storage.trial_log import Trial, Trials
from trainables.config import as_plain
from trainables.numerics.seeds import derived_seed

log = logging.getLogger("orchestrator")
_FACTORS = (0.8, 1.2)  # a copied value is multiplied by one of them (section 4.1)
_RESAMPLED = 0.25  # probability that a value is drawn anew instead (section 4.2)


class PbtPopulation:
    """The trials of one search that copy from each other."""

    def __init__(self, planned: PlannedSearch, store: Store, trials: Trials) -> None:
        self.planned, self.search = planned, planned.search
        self.store, self.trials = store, trials

    @property
    def boundary(self) -> int:
        """Return the next epoch after which all trials wait for each other, counted from 1."""
        return min(self.trials.evolved + self.search.interval_epochs, self.epochs)

    @property
    def epochs(self) -> int:
        """Return the epochs of every trial."""
        return self.planned.config_of({}).epochs

    def running(self, count: int) -> int:
        """Return how many of the first `count` trials have not reached the boundary yet."""
        trials = self.trials.all(count)
        return sum(trial.state == "RUNNING" and trial.epochs < self.boundary for trial in trials)

    def key_of(self, index: int, generation: int = 0) -> str:
        """Return the key of a trial's Run, as in `trial_key`."""
        return trial_key(self.planned, index, generation)

    def run_of(self, trial: Trial) -> Run:
        """Return the Run that a trial's process trains, with the values that it has now."""
        run = self.planned.run_of(trial.values)
        return replace(run, key=trial.key, config=as_plain(self.planned.config_of(trial.recipe)))

    def evolve(self, indices: Sequence[int], seconds: float) -> None:
        """Let the worst trials at the boundary copy from the best ones. seconds: that the search
        has taken.

        One write to the trial log makes it happen: a driver that dies changes all or nothing.
        """
        waiting = [trial for i in indices if (trial := self.trials.get(i)) is not None]
        epoch = self.boundary
        scores = {trial.index: self._score(trial) for trial in waiting}
        order = sorted(waiting, key=lambda trial: (scores[trial.index], -trial.index))
        size = min(math.ceil(len(order) * self.search.quantile), len(order) // 2)
        best = order[len(order) - size :]
        exploited: dict[str, Trial] = {}  # old key of a trial → what it is now
        with ExitStack() as owned:
            for trial in order[:size]:
                draw = random.Random(derived_seed("evolve", self.planned.seed, trial.index, epoch))
                changed = self._exploit(trial, draw.choice(best), epoch, draw, owned)
                if changed is not None:
                    exploited[trial.key] = changed
            self.trials.evolve(list(exploited.values()), epoch, seconds)
        for key in exploited:
            shutil.rmtree(self.store.run(key).path, ignore_errors=True)  # no trial has it any more

    def _score(self, trial: Trial) -> float:
        """Return a figure of which higher is better; -inf when the checkpoints are lost."""
        history = self.store.run(trial.key).history()
        sign = 1 if self.search.mode == "max" else -1
        return sign * history[-1][self.search.metric] if history else -math.inf

    def _exploit(
        self, trial: Trial, donor: Trial, epoch: int, draw: random.Random, owned: ExitStack
    ) -> Trial | None:
        """Return a trial with the donor's weights and optimizer, and values near the donor's; None
        when the donor's checkpoint is damaged.

        owned: holds the new key until the trial log names it, so that `clean` leaves it alone.
        """
        key = self.key_of(trial.index, len(trial.lineage) + 1)
        shutil.rmtree(self.store.run(key).path, ignore_errors=True)  # left by a driver that died
        owner = self.store.run(key).acquire(f"the search for {trial.label}")
        if owner is None:
            raise RuntimeError(f"another process has key {key} of {trial.label}: submit again")
        owned.enter_context(owner)
        if not continue_from(self.store, key, trial.key, donor.key, epoch):
            log.warning(
                "%s cannot copy from %s, whose checkpoint is damaged: it continues as it is",
                trial.label, donor.label,
            )  # fmt: skip
            return None
        before = donor.current
        values = self.explore(before, draw)
        new = {name: value for name, value in values.items() if value != before[name]}
        changes = [
            *donor.recipe.get("changes", ()),
            *([{"epoch": epoch + 1, **new}] if new else []),
        ]
        shown = ", ".join(f"{name} {before[name]} → {value}" for name, value in new.items())
        log.info("%s continues from %s after epoch %d: %s", trial.label, donor.label, epoch,
                 shown or "with the same values")  # fmt: skip
        changed = replace(
            trial,
            key=key,
            evolved_values={**donor.recipe, "changes": changes},
            lineage=[*trial.lineage, {"epoch": epoch, "trial": donor.index, "values": values}],
        )
        history = self.store.run(key).history()
        return changed.with_history(history, self.search.metric, self.search.mode)

    def explore(self, values: Mapping[str, Any], draw: random.Random) -> dict[str, Any]:
        """Return the values near the given ones, inside the space."""
        kinds = self.planned.kinds
        near: dict[str, Any] = {}
        for name, dimension in self.search.space.items():
            if dimension.choice is not None:
                position = dimension.choice.index(values[name])
                position = _move(position, len(dimension.choice), draw)
                near[name] = typed(kinds[name], dimension.choice[position])
            else:
                near[name] = _perturb(dimension, values[name], kinds[name] is int, draw)
        return near


def trial_key(planned: PlannedSearch, index: int, generation: int = 0) -> str:
    """Return the key of the Run of a population's trial. No other Run has it, since its weights may
    come from another trial. generation: how often the trial has copied from another one."""
    text = f"{planned.key} trial {index} generation {generation}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def continue_from(store: Store, key: str, previous: str, donor: str, epoch: int) -> bool:
    """Begin a key with the donor's checkpoints up to an epoch, and with the logs and the attempt
    number of the key `previous`.

    Returns whether the donor's checkpoint of that epoch verifies; if not, nothing is begun.
    """
    folder = store.run(key).path
    parts = [path for path in store.run(donor).path.glob("[es]*_*") if _epoch_of(path) <= epoch]
    for path in (*parts, store.run(previous).path / "logs"):
        copy = folder / path.name
        copy.mkdir(parents=True)
        for file in path.glob("*"):
            shutil.copyfile(file, copy / file.name)
        sync_folder(copy)
    write_json(folder / "attempt", {"attempt": store.run(previous).attempt()})
    newest = store.run(key).newest()
    if newest is None or newest.epoch != epoch:
        shutil.rmtree(folder)
        return False
    return True


def _epoch_of(path: Path) -> int:
    """Return the epoch in the name of a checkpoint's folder: `epoch_00003`."""
    return int(path.name.partition("_")[2])


def _move(position: int, count: int, draw: random.Random) -> int:
    """Return the position of a neighbor in a choice, or any position."""
    if draw.random() < _RESAMPLED:
        return draw.randrange(count)
    return min(count - 1, max(0, position + draw.choice((-1, 1))))


def _perturb(dimension: Dimension, value: float, whole: bool, draw: random.Random) -> float | int:
    low, high = dimension.bounds
    if draw.random() >= _RESAMPLED:
        drawn = value * draw.choice(_FACTORS)
    elif dimension.log is not None:
        drawn = math.exp(draw.uniform(math.log(low), math.log(high)))
    else:
        drawn = draw.uniform(low, high)
    return dimension.rounded(min(high, max(low, round(drawn) if whole else drawn)), whole)
