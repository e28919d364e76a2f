"""Show figures of a study that runs as gauges of Ray, which Prometheus reads at the port of Ray's
metrics. They are off unless `gauges: true` stands in orchestrator.yaml."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ray.util.metrics import Gauge

from orchestrator.storage.run_records import Store

log = logging.getLogger(__name__)
_PERIOD_SECONDS = 5.0
STATES = ("waiting", "running", "done", "failed")
# Prometheus' names begin with `ray_`
RUNS, EPOCHS, SPEED = "orchestrator_runs", "orchestrator_epochs", "orchestrator_images_per_second"


@dataclass(frozen=True)
class Standing:
    """Says how far a study is: keys of its Runs, those that train now, how others have ended."""

    keys: Collection[str]
    running: Collection[str]
    ended: Mapping[str, str]  # key → FINISHED, or another state


@dataclass(frozen=True)
class Figures:
    """Holds what the gauges show. epochs: of all Runs, also of those that were trained before;
    images_per_s: of all Runs that train now, together."""

    runs: Mapping[str, int]  # each of STATES → how many Runs
    epochs: int
    images_per_s: float


def figures_of(store: Store, standing: Standing) -> Figures:
    """Return what the gauges show of a study now."""
    keys, counts = set(standing.keys), Counter[str]()
    epochs, speed = 0, 0.0
    for key in keys:
        progress = store.run(key).progress() or {}
        if progress.get("unit", "epochs") == "epochs":
            epochs += int(progress.get("done", 0))
        if key in standing.ended:
            counts["done" if standing.ended[key] == "FINISHED" else "failed"] += 1
        elif key in standing.running:
            counts["running"] += 1
            speed += float(progress.get("images_per_s") or 0.0)
        else:
            counts["waiting"] += 1
    return Figures({state: counts[state] for state in STATES}, epochs, speed)


class StudyGauges:
    """Sets the gauges of one study every few seconds, from a thread. Training neither waits for it
    nor fails by it."""

    def __init__(self, study: str, store: Store, standing: Callable[[], Standing]) -> None:
        self._store, self._standing, self._study = store, standing, {"study": study}
        self._runs = Gauge(RUNS, "Runs of the study, by state", ("study", "state"))
        self._epochs = Gauge(EPOCHS, "epochs that Runs of the study have done", ("study",))
        self._speed = Gauge(SPEED, "images per second of all Runs that train", ("study",))

    def start(self) -> None:
        """Begin to set them; the thread ends with the process."""
        threading.Thread(target=self._loop, name="gauges", daemon=True).start()

    def _loop(self) -> None:
        while True:
            try:
                self._set(figures_of(self._store, self._standing()))
            except Exception:  # the study goes on; the next look may be better
                log.exception("the gauges could not be set")
            time.sleep(_PERIOD_SECONDS)

    def _set(self, figures: Figures) -> None:
        for state, count in figures.runs.items():
            self._runs.set(count, tags=self._study | {"state": state})
        self._epochs.set(figures.epochs, tags=self._study)
        self._speed.set(figures.images_per_s, tags=self._study)
