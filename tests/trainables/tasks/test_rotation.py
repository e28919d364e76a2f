"""The label of a rotation is the turn the model sees, and nothing else teaches it."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.tasks.rotation import Rotation
from trainables.trainable import Batch
from trainables.transforms.geometry import MEAN, STD, normalize

SIDE = 8
CLASSES = ("a", "b", "c")


def corner(images: Tensor) -> Tensor:
    """Which corner is brightest, in the order that counter-clockwise quarter turns visit them."""
    corners = [images[:, 0, r, c] for r, c in ((0, 0), (-1, 0), (-1, -1), (0, -1))]
    return torch.stack(corners, 1).argmax(1)


class Oracle(nn.Module):
    """Finds the marked corner: its logits say where it went, and it keeps what it was shown."""

    def __init__(self, offset: int = 0) -> None:
        super().__init__()
        self.offset, self.seen = offset, torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return 20.0 * nn.functional.one_hot((corner(images) + self.offset) % 4, 4)


def rotation(**settings: Any) -> Rotation:
    torch.manual_seed(0)
    config = Rotation.Config.model_validate({"dataset": "target", "small_input": True} | settings)
    return Rotation(config, DataInfo(CLASSES, SIDE))


def batch(count: int = 12, epoch: int = 1, seed: int = 0, label: int = 0) -> Batch:
    """Dark noise with a bright upper left corner."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    images[:, :, 0, 0] = 255
    return Batch(images, torch.full((count,), label), torch.arange(count), seed, epoch)


def with_model(trainable: Rotation, model: nn.Module) -> Rotation:
    trainable.model = model  # type: ignore[assignment]
    return trainable


def denormalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return ((images * std + mean) * 255).round().byte()


def test_the_model_tells_four_turns_apart_whatever_the_classes() -> None:
    assert rotation().model(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, 4)


def test_evaluation_shows_every_image_in_all_four_turns() -> None:
    oracle, given = Oracle(), batch(5)
    sums = with_model(rotation(), oracle).evaluate(given)
    assert (float(sums["count"]), len(oracle.seen)) == (20, 20)
    shown = {image.numpy().tobytes() for image in denormalised(oracle.seen)}
    turned = [torch.rot90(image, k, (1, 2)) for image in given.images for k in range(4)]
    assert shown == {image.contiguous().numpy().tobytes() for image in turned}


@pytest.mark.parametrize(("offset", "accuracy"), [(0, 1.0), (1, 0.0), (2, 0.0), (3, 0.0)])
def test_evaluation_labels_are_the_turns(offset: int, accuracy: float) -> None:
    trainable = with_model(rotation(), Oracle(offset))
    figures = trainable.metrics(trainable.evaluate(batch()))
    assert figures["accuracy"] == accuracy
    assert figures["loss"] == pytest.approx(0 if accuracy else 20, abs=1e-3)


def test_a_guesser_is_right_once_in_four() -> None:
    class Guesser(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(len(images), 4)

    trainable = with_model(rotation(), Guesser())
    assert trainable.metrics(trainable.evaluate(batch()))["accuracy"] == 0.25


@pytest.mark.parametrize(("rotations", "shown"), [(1, 12), (4, 48)])
def test_training_labels_are_the_turns(rotations: int, shown: int) -> None:
    trainable, oracle = rotation(rotations_per_image=rotations), Oracle()
    assert float(trainable.loss(oracle, batch())) < 1e-3
    assert len(oracle.seen) == shown
    assert float(trainable.loss(Oracle(offset=1), batch())) == pytest.approx(20, abs=1e-3)


def test_all_four_rotations_train_on_each_image_in_each_turn() -> None:
    trainable, oracle, given = rotation(rotations_per_image=4), Oracle(), batch(3)
    trainable.loss(oracle, given)
    upright = normalize(given.images)
    wanted = [torch.rot90(upright, k, (2, 3)) for k in range(4)]
    assert torch.equal(oracle.seen, torch.cat(wanted))


def turns_of(count: int = 200, **sample: int) -> list[int]:
    """Which turn each image gets in training, without a crop."""
    oracle = Oracle()
    rotation(rotations_per_image=1).loss(oracle, batch(count=count, **sample))
    return corner(oracle.seen).tolist()


def test_one_rotation_is_drawn_anew_for_each_image_epoch_and_seed() -> None:
    turns = turns_of(epoch=1)
    assert all(30 < turns.count(turn) < 70 for turn in range(4))
    assert turns == turns_of(epoch=1)
    assert turns != turns_of(epoch=2)
    assert turns != turns_of(epoch=1, seed=1)


def test_cropping_shifts_the_upright_images_whatever_their_turns() -> None:
    moved, given = Oracle(), batch(count=400)
    rotation(augment="crop").loss(moved, given)
    padded = nn.functional.pad(given.images, (1, 1, 1, 1))
    found = set()
    for turn, image, around in zip(turns_of(400), denormalised(moved.seen), padded, strict=True):
        upright = torch.rot90(image, -turn, (1, 2))
        places = itertools.product(range(3), repeat=2)
        shifts = [(r, c) for r, c in places if torch.equal(upright, cut(around, r, c))]
        assert len(shifts) == 1
        found.add((turn, *shifts[0]))
    assert len(found) == 4 * 9  # turns and shifts are drawn apart


def cut(image: Tensor, row: int, column: int) -> Tensor:
    return image[:, row : row + SIDE, column : column + SIDE]


def test_the_labels_of_the_data_set_teach_nothing() -> None:
    losses, sums = [], []
    for label in (0, 2):
        trainable = rotation()
        given = batch(label=label)
        losses.append(trainable.loss(trainable.model, given).detach())
        trainable.set_training(False)
        with torch.inference_mode():
            sums.append(trainable.evaluate(given))
    assert torch.equal(losses[0], losses[1])
    assert all(torch.equal(sums[0][name], sums[1][name]) for name in sums[0])
