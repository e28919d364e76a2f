"""Computes exact metrics over a split: every image counts once, for any number of ranks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.loading.batches import BatchStream, evaluation_shares
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
    shares = evaluation_shares(table, split, at_once, world)
    sums: dict[str, Tensor] = {}
    for rows, tensors in zip(shares, BatchStream(table, shares, world.device), strict=True):
        with autocast():
            batch = Batch(*tensors, seed, 0, places=table.places(rows))
            for name, value in trainable.evaluate(batch).items():
                sums[name] = sums[name] + value if name in sums else value
    return {name: world.all_reduce_sum(value) for name, value in sums.items()}


def named_figures(split: str, trainable: Trainable, sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Return `<split>/<metric>` → value, from the sums over the split."""
    return {f"{split}/{name}": value for name, value in trainable.metrics(sums).items()}


def with_test_facts(
    facts: Mapping[str, str], trainable: Trainable, sums: Mapping[str, Tensor]
) -> dict[str, str]:
    """Return facts with what the sums over the test tell: classes that no image shows (`absent`),
    and the class that is predicted everywhere (`one_class`), which is a warning too."""
    told = dict(facts)
    if absent := trainable.absent(sums):
        told["absent"] = ", ".join(absent)
    if one_class := trainable.one_class(sums):
        told["one_class"] = one_class
        said = f"predicts {one_class!r} everywhere"
        told["warning"] = "; ".join(filter(None, [told["warning"], said]))
    return told
