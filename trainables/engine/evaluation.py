"""Exact figures over a split: every image counts once, however many ranks there are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.engine.step import Autocast
from trainables.loading.batches import BatchStream, evaluation_steps
from trainables.loading.image_table import ImageTable
from trainables.numerics.distributed import World
from trainables.trainable import Batch, Trainable


@torch.inference_mode()
def sums_over(
    split: str,
    trainable: Trainable,
    table: ImageTable,
    world: World,
    autocast: Autocast,
    seed: int,
) -> dict[str, Tensor]:
    """What `trainable.evaluate` sums over a split of the table, over all ranks.

    split: `train`, `val` or `test`. Every rank takes part and gets the same sums.
    """
    trainable.set_training(False)
    at_once = trainable.evaluated_at_once(table.size) * world.size
    steps = evaluation_steps(table.parts[split], at_once)
    shares = [world.share(step) for step in steps]
    sums: dict[str, Tensor] = {}
    for images, labels, indices in BatchStream(table, shares, world.device):
        with autocast():
            batch = Batch(images, labels, indices, seed, 0)
            for name, value in trainable.evaluate(batch).items():
                sums[name] = sums[name] + value if name in sums else value
    return {name: world.total(value) for name, value in sums.items()}


def figures_of(split: str, trainable: Trainable, sums: Mapping[str, Tensor]) -> dict[str, float]:
    """`<split>/<metric>` → value, from the sums over the split."""
    return {f"{split}/{name}": value for name, value in trainable.metrics(sums).items()}
