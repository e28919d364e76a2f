"""Searches over a few digits, opened without Ray Tune, and a sync that only remembers."""

from pathlib import Path

import pytest

from orchestrator.config.study_loader import from_mapping
from orchestrator.execution.task import Task
from orchestrator.execution.worker import train
from orchestrator.planning.placement import ResourceRequest
from orchestrator.planning.prepare import build_caches, prepare
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.run_sync import RunEnd
from orchestrator.tuning.tuner import SearchContext, Tuner
from tests.conftest import ALONE

CONFIG = {"dataset": "d", "small_input": True, "epochs": 2, "batch_size": 16, "lr": 0.01}
SEARCH = {"trials": 3, "algorithm": "random", "space": {"lr": {"log": [1e-4, 0.1]}}, "then": {}}


class RecordingSync:
    """Stands in place of the sync to MLflow, and keeps what it was given of each label."""

    def __init__(self) -> None:
        self.ends: dict[str, tuple[str, ...]] = {}
        self.tags: dict[str, str] = {}
        self.drawn: dict[str, dict | None] = {}
        self.first_keys: dict[str, str] = {}

    def follow(self, run, end=None, upstream_values=None, lineage=(), first_key="") -> None:
        self.ends[run.label] = ("RUNNING",)
        self.first_keys[run.label] = first_key
        self.drawn[run.label] = upstream_values

    def end(self, run, end: RunEnd, upstream_values=None, lineage=(), first_key="") -> None:
        self.ends[run.label] = (end.state, end.reason, end.outcome)

    def set_tags(self, tags) -> None:
        self.tags |= tags


def open_search(
    digits_home: Home, search: dict, stages: dict | None = None, last: bool = True
) -> tuple[Tuner, RecordingSync]:
    """Return the tuner of a search that no process runs yet, and its sync.

    stages: upstream of the searched one, A, which starts from the last of them.
    """
    upstream = stages or {}
    stage = {"trainable": "classify", "config": CONFIG, "search": search}
    stage |= {"after": list(upstream)[-1]} if upstream else {}
    study = from_mapping(
        {
            "study": "s",
            "data": {"d": {"type": "digits", "limit": 60}},
            "stages": {**upstream, "A": stage},
        }
    )
    prepared = prepare(study, None, digits_home)
    (planned,) = prepared.searches
    tables = build_caches(prepared, digits_home, lambda name, done, total: None)
    context = SearchContext(digits_home, ResourceRequest(1, 1, 0.0), 1, tables, "job", 0)
    sync = RecordingSync()
    return Tuner(planned, context, sync, last), sync  # type: ignore[arg-type]


def run_one(tuner: Tuner, index: int, epochs: int) -> None:
    """Train a trial as its process would, until the scheduler stops it after `epochs`."""
    trial = tuner.book.draw(index)
    assert trial is not None
    tuner.book.on_trial_start(index)
    task = Task(**tuner.config_of(trial)["task"])
    store, left = Store(Path(task.store)), [epochs]

    def report(figures) -> None:
        tuner.book.on_epoch(index, int(figures["epoch"]), figures["val/accuracy"])
        left[0] -= 1
        if not left[0]:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(
            Task(**{**task.__dict__, "attempt": store.run(task.key).begin_attempt()}), ALONE, report
        )
    tuner.book.on_trial_complete(index)
