"""What does a Run cost around its training? From its start to the first step and from the last step
to its end, against a bare `TorchTrainer.fit` that takes a step of the same model."""

import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch

from orchestrator.execution.launcher import launch
from orchestrator.execution.task import Task
from orchestrator.planning.placement import ResourceRequest
from orchestrator.storage.run_records import Store
from tests.benchmarks.photographs import CLASSES, build_table, make_photographs
from tests.benchmarks.turns import Line, ratio, seconds, shown

IMAGES, SIDE = 96, 32
CONFIG = {"dataset": "d", "batch_size": 16, "lr": 0.01, "epochs": 1}
SHARE = ResourceRequest(workers=1, cpus=1, gpus=0)


def measure(turns: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "images", IMAGES, SIDE)
        table = build_table(folder / "images", SIDE, folder / "cache")
        ray.init(num_cpus=2, include_dashboard=True, logging_level="ERROR", log_to_driver=False)
        try:
            return _measure(folder, table, turns)
        finally:
            ray.shutdown()


def _measure(folder: Path, table: Path, turns: int) -> list[Line]:
    store, numbers = Store(folder / "store"), iter(range(10**6))

    def run() -> float:
        key = f"run{next(numbers)}"
        task = Task(
            key=key, attempt=store.run(key).begin_attempt(), label="bench", trainable="classify",
            config=CONFIG, seed=0, vary=("init", "order"), table=str(table),
            store=str(store.root), parent=None, parent_label=None,
        )  # fmt: skip
        started = time.time()
        outcome = launch(task, SHARE, folder / "ray_train")
        ended = time.time()
        assert outcome.state == "finished", outcome
        result = store.run(key).result()
        assert result is not None
        return ended - started - float(result["seconds"])

    def bare() -> float:
        mark = folder / f"bare{next(numbers)}"
        started = time.time()
        ray.train.torch.TorchTrainer(
            one_step,
            train_loop_config={"mark": str(mark)},
            scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(name=mark.name, storage_path=str(folder / "bare")),
        ).fit()
        first, last = map(float, mark.read_text().split())
        return time.time() - started - (last - first)

    found = seconds({"run": run, "bare": bare}, turns)
    return [
        Line("around a Run: start to first step, last step to end", shown(found["run"]), "", turns),
        Line("around a bare `TorchTrainer.fit`", shown(found["bare"]), "", turns),
        Line("around a Run, over a bare fit's", f"{ratio(found['run'], found['bare']):.2f}",
             "≤ 1.2", turns),
    ]  # fmt: skip


def one_step(config: dict[str, Any]) -> None:
    """A ResNet18 as one would train it on Ray: one step, one checkpoint of its weights."""
    import torch
    import torchvision

    model = ray.train.torch.prepare_model(torchvision.models.resnet18(num_classes=CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9)
    first = time.time()
    images, labels = torch.randn(16, 3, SIDE, SIDE), torch.randint(CLASSES, (16,))
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    last = time.time()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pt")
        checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"loss": float(loss)}, checkpoint=checkpoint)
    Path(config["mark"]).write_text(f"{first} {last}")
