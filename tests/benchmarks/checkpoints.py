"""What does a checkpoint cost? An epoch of ResNet50 during which one is written, from the copy in
memory until it is on the disk, against the same epoch without."""

import os
import statistics

import torch

from tests.benchmarks.training import BATCH, SIDE, training
from tests.benchmarks.turns import Line, ratio, seconds, shown
from trainables.engine.checkpoints import TrainingState

IMAGES = 1_600
EVERY = {"epochs": 1}


def measure(turns: int) -> list[Line]:
    torch.set_num_threads(os.cpu_count() or 1)
    with training(IMAGES, backbone="resnet50", checkpoint_every=EVERY) as run:
        numbers = iter(range(1, 10**6))

        def epoch() -> None:
            run.train_epoch()

        def with_checkpoint() -> None:
            weights, optimizer = run.trainable.model.state_dict(), run.optimizer.state_dict()
            number = next(numbers)
            run.checkpoints.save(TrainingState(number, weights, optimizer, [], 0.0), number)
            run.train_epoch()
            run.checkpoints.settle()

        epoch()  # the optimizer has its state from here on
        found = seconds({"with": with_checkpoint, "without": epoch}, turns)
    what = f"an epoch of {IMAGES} images, ResNet50, {SIDE} px, batch {BATCH}, {run.precision}"
    more = [a - b for a, b in zip(found["with"], found["without"], strict=True)]
    kept = ratio(found["without"], found["with"])
    return [
        Line(f"{what}: speed with a checkpoint over that without", f"{kept:.3f}", "≥ 0.98", turns),
        Line(what, shown(found["without"]), "", turns),
        Line("what the checkpoint adds", shown(more), f"{statistics.median(more):.2g} s", turns),
    ]
