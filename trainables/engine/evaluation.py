"""Computes exact metrics over a split: every image counts once, for any number of ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.loading.batches import BatchStream, evaluation_steps
from trainables.loading.image_table import ImageTable
from trainables.numerics.distributed import World
from trainables.numerics.precision import Autocast
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
    """Add up what `trainable.evaluate` returns, over all batches of a split and all ranks.

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
    return {name: world.all_reduce_sum(value) for name, value in sums.items()}


def named_figures(split: str, trainable: Trainable, sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Return `<split>/<metric>` → value, from the sums over the split."""
    return {f"{split}/{name}": value for name, value in trainable.metrics(sums).items()}
