"""What a training step hands to a GPU stays as little as it is: counted, without a GPU."""

import pytest
import torch
from torch import Tensor

from tests.benchmarks.launches import Count, Dispatcher, Makers, count

# launches of a training step at most, and syncs of a batch of evaluation
BOUNDS = {
    "byol, ResNet18, the paper's views, LARS": (845, 0),
    "classify, ResNet18, crop_flip, SGD": (215, 0),
    "classify, ResNet18, RandAugment, mixup, average": (1189, 0),
    "rotation, ResNet18, SGD": (216, 0),
    "segment, DeepLabV3 on ResNet50, jitter, SGD": (913, 0),
}


@pytest.mark.parametrize("recipe", BOUNDS)
def test_a_step_hands_over_no_more_and_waits_for_nothing(recipe: str) -> None:
    step, batch = count(recipe)
    launches, syncs = BOUNDS[recipe]
    assert 100 < step.total <= launches, step.names.most_common(20)
    assert step.syncs.total() == 0, step.syncs
    assert batch.syncs.total() <= syncs, batch.syncs


def counted(work: object, *tensors: Tensor) -> Count:
    dispatcher = Dispatcher()
    with dispatcher, Makers(dispatcher):
        work(*tensors)  # type: ignore[operator]
    return dispatcher.steps[-1]


def on_device(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def test_what_waits_for_the_device_is_found() -> None:
    """So that a count of 0 says something."""
    values = on_device(4)
    for work in (
        lambda t: float(t[0]),
        lambda t: bool(t[0] > 0),
        lambda t: (t > 0).nonzero(),
        lambda t: t[t > 0],
        lambda t: t.cpu(),
        lambda t: torch.ones(4).to("meta"),
        lambda t: torch.tensor([1.0, 2.0], device="meta"),
        lambda t: torch.bincount(t.long(), minlength=4),
    ):
        assert counted(work, values).syncs.total() == 1
    assert not counted(lambda t: torch.ones(4).to("meta", non_blocking=True), values).syncs
    assert not counted(lambda t: t[:2] + t.new_zeros(2), values).syncs


def test_views_are_free_and_lists_of_tensors_are_cut_as_cuda_cuts_them() -> None:
    values = on_device(4, 4)
    assert counted(lambda t: t.view(16)[2:].unsqueeze(0).expand(3, -1).detach(), values).total == 0
    assert counted(lambda t: t.view(16) + 1, values).total == 1
    assert counted(lambda t: torch.ones(3), values).total == 0  # on the CPU
    few, many = ([on_device(2) for _ in range(length)] for length in (48, 49))
    for tensors, launches in ((few, 1), (many, 2)):
        add = lambda _, lists=tensors: torch._foreach_add(lists, lists)  # noqa: E731
        assert counted(add, values).total == launches
    large = [on_device(65536 * 320), on_device(1)]
    assert counted(lambda _: torch._foreach_mul_(large, 2.0), values).total == 2
    other = [on_device(1) for _ in few]
    assert counted(lambda _: torch._foreach_mul_(few, other), values).total == 48
