"""Does the epoch loop cost anything beside the training? An epoch as a Run trains it, with its
progress written and its losses checked, against a plain PyTorch loop.

The same model, batch, precision, memory format, threads and augmentation, on decoded images.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from orchestrator.execution.task import Task
from orchestrator.execution.worker import Training, build_training
from orchestrator.storage.run_records import Store
from tests.benchmarks.photographs import CLASSES, build_table, make_photographs
from tests.benchmarks.turns import Line, ratio, seconds, shown
from trainables.loading.batches import training_steps
from trainables.numerics.distributed import World
from trainables.numerics.precision import choose_precision
from trainables.transforms.geometry import AUGMENTATIONS

IMAGES, SIDE, BATCH = 1_600, 64, 64
CONFIG = {"dataset": "d", "batch_size": BATCH, "lr": 0.01, "augment": "resized_crop_flip"}


@contextmanager
def training(images: int = IMAGES, **values: object) -> Iterator[Training]:
    """A Run that has not begun, on photographs in a temporary folder. values: of its configuration
    beside those of CONFIG."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photographs(folder / "images", images, SIDE)
        path = build_table(folder / "images", SIDE, folder / "cache")
        store = Store(folder / "store")
        task = Task(
            key="key", attempt=store.run("key").begin_attempt(), label="bench",
            trainable="classify", config={**CONFIG, **values}, seed=0, vary=("init", "order"),
            table=str(path), store=str(store.root), parent=None, parent_label=None,
        )  # fmt: skip
        yield build_training(task, World(0, 1, device))


def measure(turns: int) -> list[Line]:
    torch.set_num_threads(os.cpu_count() or 1)
    with training() as run:
        model = torchvision.models.resnet18(num_classes=CLASSES).to(run.world.device)
        model.to(memory_format=run.precision.memory_format)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=5e-4)
        waits: list[float] = []

        def ours() -> None:
            waits.append(run.train_epoch()["system/input_wait_fraction"])

        found = seconds({"ours": ours, "plain": lambda: plain(run, model, optimizer)}, turns)
        what = f"training, {run.precision}, ResNet18, {SIDE} px, batch {BATCH}"
    speed = ratio(found["plain"], found["ours"])
    return [
        Line(f"{what}: speed over a plain PyTorch loop's", f"{speed:.3f}", "≥ 0.97", turns),
        Line(f"{what}: an epoch of {IMAGES} images", shown(found["ours"]), "", turns),
        Line("share of an epoch that waits for input", shown(waits[-turns:], ""), "≤ 0.02", turns),
    ]


def plain(run: Training, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """What one would write by hand."""
    draws, augment = AUGMENTATIONS["resized_crop_flip"]
    precision = choose_precision(run.config, run.world.device, SIDE)
    model.train()
    for rows in training_steps(run.table.parts["train"], BATCH, 0, 1):
        images = torch.from_numpy(run.table.images[rows]).to(run.world.device)
        labels = torch.from_numpy(run.table.labels[rows]).to(run.world.device)
        views = augment(images, torch.rand(len(rows), draws, device=run.world.device))
        optimizer.zero_grad(set_to_none=True)
        with precision.context(run.world.device):
            loss = F.cross_entropy(model(views).float(), labels)
        loss.backward()
        optimizer.step()
