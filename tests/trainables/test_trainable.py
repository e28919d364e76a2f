"""The contract, once, over every trainable of the catalog."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.config import as_plain
from trainables.dataset import DataInfo
from trainables.numerics.seeds import derived_seed
from trainables.tasks.registry import TRAINABLES
from trainables.trainable import Batch, Trainable

SIDE = 8
DATA = DataInfo(("red", "green", "blue", "grey"), SIDE)
NAMES = list(TRAINABLES)
MASKED = [name for name in NAMES if TRAINABLES[name].NEEDS == "masks"]
ACCURATE = [name for name in NAMES if "accuracy" in TRAINABLES[name].FIGURES and name not in MASKED]
SETTINGS = {"segment": {"small_input": False, "network": "deeplabv3"}}


def build(name: str, seed: int = 0, **settings: Any) -> Trainable:
    """A trainable with its own defaults, small enough for these images."""
    kind = TRAINABLES[name]
    small = {"dataset": "target", "small_input": True, **SETTINGS.get(name, {})}
    config = kind.Config.model_validate(small | settings)
    torch.manual_seed(derived_seed("initialisation", seed))
    return kind(config, DATA)


def batch(name: str, count: int = 8, epoch: int = 1) -> Batch:
    """Noise with the colour of its class, brighter towards the top; as a trainable needs it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 30, (count, 3, SIDE, SIDE), generator=generator)
    labels = torch.arange(count) % len(DATA.classes)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label if label < 3 else slice(None)] += 80
    images += torch.linspace(140, 0, SIDE).long().view(-1, 1)
    if name in MASKED:
        labels = labels.view(-1, 1, 1).expand(-1, SIDE, SIDE).byte()
    return Batch(images.byte(), labels, torch.arange(count), seed=0, epoch=epoch)


def rows(whole: Batch, part: slice) -> Batch:
    images, labels, indices = (t[part] for t in (whole.images, whole.labels, whole.indices))
    return Batch(images, labels, indices, whole.seed, whole.epoch)


def train(trainable: Trainable, steps: int, samples: Batch) -> list[float]:
    """A few optimizer steps, one an epoch. Returns the losses."""
    trainable.set_training(True)
    learnt = [p for p in trainable.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.01, momentum=0.9)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        again = Batch(samples.images, samples.labels, samples.indices, samples.seed, step)
        loss = trainable.loss(trainable.model, again)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@torch.inference_mode()
def evaluate(trainable: Trainable, samples: Batch) -> dict[str, Tensor]:
    trainable.set_training(False)
    return trainable.evaluate(samples)


@pytest.mark.parametrize("name", NAMES)
def test_one_step_gives_a_finite_loss_and_every_learnt_parameter_a_gradient(name: str) -> None:
    trainable = build(name)
    (loss,) = train(trainable, 1, batch(name))
    assert 0 < loss < 100
    for parameter, value in trainable.model.named_parameters():
        if value.requires_grad:
            assert value.grad is not None and value.grad.isfinite().all(), parameter
            assert value.grad.any(), parameter
    assert any(value.requires_grad for value in trainable.model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_step_from_the_same_seed_gives_the_same_float_loss(name: str) -> None:
    losses = []
    for _ in range(2):
        trainable = build(name)
        trainable.set_training(True)
        torch.manual_seed(derived_seed("step", 0))
        losses.append(trainable.loss(trainable.model, batch(name)))
    assert (losses[0].shape, losses[0].dtype) == ((), torch.float32)
    assert torch.equal(losses[0], losses[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_model_follows_the_torch_seed(name: str) -> None:
    first, again, other = (build(name, seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", NAMES)
def test_set_training_switches_the_model_both_ways(name: str) -> None:
    trainable = build(name)
    for training in (True, False, True):
        trainable.set_training(training)
        assert {module.training for module in trainable.model.modules()} == {training}


@pytest.mark.parametrize("name", NAMES)
def test_the_sums_of_two_halves_add_up_to_those_of_the_whole(name: str) -> None:
    trainable = build(name)
    train(trainable, 2, batch(name))
    whole = evaluate(trainable, batch(name, 12))
    parts = [
        evaluate(trainable, rows(batch(name, 12), part)) for part in (slice(0, 5), slice(5, 12))
    ]
    assert all(value.dtype in (torch.float64, torch.int64) for value in whole.values())
    assert set(parts[0]) == set(parts[1]) == set(whole)
    for sum_name, value in whole.items():
        added = parts[0][sum_name] + parts[1][sum_name]
        assert torch.allclose(added.double(), value.double(), rtol=1e-4, atol=1e-6), sum_name


@pytest.mark.parametrize("name", NAMES)
def test_a_share_without_images_adds_nothing(name: str) -> None:
    """Of what is left at the end of a split, some workers get none."""
    nothing = evaluate(build(name), rows(batch(name), slice(0, 0)))
    assert set(nothing) == set(evaluate(build(name), batch(name)))
    assert all(not value.any() for value in nothing.values())
    with torch.inference_mode():
        for number, value in enumerate(nothing.values()):  # as ranks add to each, in place
            value += number
    found = [float(value.flatten()[0]) for value in nothing.values()]
    assert found == [float(number) for number in range(len(nothing))]


@pytest.mark.parametrize("name", NAMES)
def test_of_larger_images_fewer_are_evaluated_at_once(name: str) -> None:
    kind = TRAINABLES[name]
    counts = [kind.evaluated_at_once(side) for side in (8, 32, 128, 512, 2048, 100_000)]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 1
    pixels = [count * side**2 for count, side in zip(counts[:-2], (8, 32, 128, 512), strict=True)]
    assert max(pixels) <= 8 * 2**20


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_changes_nothing_and_repeats_itself(name: str) -> None:
    trainable = build(name)
    train(trainable, 1, batch(name))
    before = {key: value.clone() for key, value in trainable.model.state_dict().items()}
    first, second = evaluate(trainable, batch(name)), evaluate(trainable, batch(name, epoch=2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    after = trainable.model.state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_are_the_declared_figures_and_one_of_them_selects(name: str) -> None:
    trainable = build(name)
    figures = trainable.metrics(evaluate(trainable, batch(name)))
    more = {f"iou/{label}" for label in DATA.classes} if name in MASKED else set()
    assert set(figures) == set(trainable.FIGURES) | more
    assert all(isinstance(value, float) for value in figures.values())
    assert torch.tensor(list(figures.values())).isfinite().all()
    metric = trainable.SELECT
    assert metric.startswith("val/") and metric.removeprefix("val/") in trainable.FIGURES


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_is_the_same_model(name: str) -> None:
    trained, fresh = build(name), build(name, seed=1)
    train(trained, 2, batch(name))
    before, unlike = evaluate(trained, batch(name)), evaluate(fresh, batch(name))
    fresh.model.load_state_dict(trained.model.state_dict(), strict=True)
    after = evaluate(fresh, batch(name))
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not all(torch.equal(before[key], unlike[key]) for key in before)
    images = torch.randn(4, 3, SIDE, SIDE)
    with torch.inference_mode():
        assert torch.equal(trained.model.encoder(images), fresh.model.encoder(images))


@pytest.mark.parametrize("name", NAMES)
def test_the_encoders_tensors_carry_its_name_for_the_weight_transfer(name: str) -> None:
    model = build(name).model
    carried = [key for key in model.state_dict() if key.startswith("encoder.")]
    assert len(carried) == len(model.encoder.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_rebuilds_the_trainable(name: str) -> None:
    trainable = build(name)
    plain = json.loads(json.dumps(as_plain(trainable.config)))
    rebuilt = build(name, **plain)
    assert rebuilt.config == trainable.config
    assert set(rebuilt.model.state_dict()) == set(trainable.model.state_dict())


@pytest.mark.parametrize("name", ACCURATE)
def test_thirty_two_images_are_learnt_by_heart(name: str) -> None:
    trainable = build(name)
    losses = train(trainable, 20, batch(name, 32))
    figures = trainable.metrics(evaluate(trainable, batch(name, 32)))
    assert figures["accuracy"] >= 0.95
    assert figures["loss"] < losses[0] / 4
