"""What does a trial cost around its training? Four trials of a search, one after the other, against
four trials of Ray Tune that each wrap a bare `TorchTrainer.fit`, as Ray's guide has it."""

import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune

from orchestrator.config.study_loader import from_mapping
from orchestrator.planning.placement import ResourceRequest
from orchestrator.planning.prepare import build_caches, prepare
from orchestrator.storage.home import Home
from orchestrator.storage.run_records import Store
from orchestrator.tracking.sync import MlflowSync
from orchestrator.tuning.tuner import SearchContext, Tuner
from tests.benchmarks.around import one_step
from tests.benchmarks.turns import Line, ratio, seconds, shown

TRIALS = 4
STUDY = {
    "study": "bench",
    "data": {"digits": {"type": "digits", "limit": 120}},
    "stages": {
        "A": {
            "trainable": "classify",
            "config": {"dataset": "digits", "small_input": True, "epochs": 1, "batch_size": 16},
            "search": {
                "trials": TRIALS, "algorithm": "random", "space": {"lr": {"log": [1e-4, 0.1]}}
            },
        }
    },
}  # fmt: skip


class Silent(MlflowSync):
    """Sends nothing: MLflow is not what is measured."""

    def __init__(self) -> None:
        pass

    def follow(self, *_: Any, **__: Any) -> None:
        pass

    def end(self, *_: Any, **__: Any) -> None:
        pass

    def set_tags(self, *_: Any) -> None:
        pass


def measure(turns: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        ray.init(num_cpus=2, include_dashboard=True, logging_level="ERROR", log_to_driver=False)
        try:
            return _measure(Path(name), turns)
        finally:
            ray.shutdown()


def _measure(folder: Path, turns: int) -> list[Line]:
    numbers = iter(range(10**6))

    def ours() -> float:
        home = Home(folder / f"home{next(numbers)}").create()
        prepared = prepare(from_mapping(STUDY), None, home)
        (planned,) = prepared.searches
        tables = build_caches(prepared, home, lambda name, done, total: None)
        place = SearchContext(home, ResourceRequest(1, 1, 0.0), 1, tables, "job", 0)
        tuner = Tuner(planned, place, Silent())
        started = time.time()
        assert tuner.run() == ("FINISHED", "")
        taken, store = time.time() - started, Store(home.store)
        newest = [store.run(trial.key).newest() for trial in tuner.book.trials.all()]
        return (taken - sum(each.info["seconds"] for each in newest if each)) / TRIALS

    def nested() -> float:
        marks = folder / f"nested{next(numbers)}"
        marks.mkdir()
        started = time.time()
        ray.tune.Tuner(
            ray.tune.with_resources(a_fit, {"CPU": 0.01}),
            param_space={"folder": str(marks)},
            tune_config=ray.tune.TuneConfig(num_samples=TRIALS, max_concurrent_trials=1),
            run_config=ray.tune.RunConfig(name="tune", storage_path=str(marks), verbose=0),
        ).fit()
        taken, trained = time.time() - started, 0.0
        found = list(marks.glob("*.mark"))
        assert len(found) == TRIALS
        for mark in found:
            first, last = map(float, mark.read_text().split())
            trained += last - first
        return (taken - trained) / TRIALS

    found = seconds({"ours": ours, "nested": nested}, turns)
    return [
        Line(f"around a trial of a search, of {TRIALS}", shown(found["ours"]), "< 5 s", turns),
        Line("around a trial that wraps a bare fit", shown(found["nested"]), "", turns),
        Line("around a trial, over a wrapped fit's", f"{ratio(found['ours'], found['nested']):.2f}",
             "≤ 1.2", turns),
    ]  # fmt: skip


def a_fit(config: dict[str, Any]) -> None:
    """One trial that trains in a worker of its own."""
    name = ray.tune.get_context().get_trial_id()
    folder = Path(config["folder"])
    ray.train.torch.TorchTrainer(
        one_step,
        train_loop_config={"mark": str(folder / f"{name}.mark")},
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name=f"fit-{name}", storage_path=str(folder)),
    ).fit()
