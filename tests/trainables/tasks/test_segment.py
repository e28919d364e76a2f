"""Segmentation: what is learnt, what does not count, the same figures however a batch is cut."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainables.dataset import IGNORED, DataInfo
from trainables.tasks.segment import Segment, SegmentConfig, dice_loss
from trainables.trainable import Batch

SIDE, CLASSES = 16, ("ground", "roof")


def config(**settings: Any) -> SegmentConfig:
    given = {"dataset": "d", "network": "deeplabv3", "scales": [1.0, 1.0]}
    return SegmentConfig.model_validate(given | settings)


def build(**settings: Any) -> Segment:
    torch.manual_seed(0)
    return Segment(config(**settings), DataInfo(CLASSES, SIDE))


def batch(count: int = 4) -> Batch:
    """Bright squares on dark ground."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 40, (count, 3, SIDE, SIDE), generator=generator)
    masks = torch.zeros(count, SIDE, SIDE)
    for k in range(count):
        spot = (slice(k % 8, k % 8 + 8), slice(4, 12))
        images[k][:, spot[0], spot[1]] += 180
        masks[k][spot] = 1
    return Batch(images.byte(), masks.byte(), torch.arange(count), seed=0, epoch=1)


class Painter(nn.Module):
    """In the place of a network: the same logits for every image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.logits.expand(len(images), -1, -1, -1)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "fcn32s"}, "fcn32s stands on vgg16, not resnet50: set backbone to vgg16"),
        ({"small_input": True}, "remove `small_input`"),
        ({"scales": [2.0, 1.0]}, "smallest, then largest"),
        ({"scales": [0.0, 1.0]}, "greater than 0"),
        ({"crop": 31}, "greater than or equal to 32"),
        ({"network": "fcn32s", "backbone": "vgg16", "weights": "imagenet", "hidden": 64}, "4096"),
        ({"network": "unet"}, "fcn32s"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": [1.0, 1.0, 2.0]}, r"class_weights has 3 numbers for 2 classes \(ground"),
        ({"crop": None}, "squares of 16 px, smaller than the networks' stride: set crop"),
    ],
)
def test_what_does_not_fit_the_data_is_said_before(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segment.check(config(**{"crop": 32, **settings}), DataInfo(CLASSES, SIDE))
    Segment.check(config(crop=32, class_weights=[1.0, 2.0]), DataInfo(CLASSES, SIDE))


def test_a_class_that_no_image_shows_is_named() -> None:
    trainable = build()
    sums = {"confusion": torch.tensor([[3, 1], [0, 0]])}
    assert trainable.absent(sums) == ["roof"]


def test_ignored_pixels_change_nothing() -> None:
    trainable = build()
    clean, spoilt = batch(), batch()
    spoilt.labels[:, :5] = clean.labels[:, :5] = IGNORED
    trainable.set_training(False)
    logits = torch.randn(1, 2, SIDE, SIDE)
    other = logits.clone()
    other[:, :, :5] = torch.randn(1, 2, 5, SIDE)
    found = []
    for painted in (logits, other):
        trainable.model = Painter(painted)  # type: ignore[assignment]
        found.append(trainable.evaluate(clean))
    assert torch.equal(found[0]["confusion"], found[1]["confusion"])
    assert torch.equal(found[0]["loss"], found[1]["loss"])
    assert int(found[0]["confusion"].sum()) == 4 * (SIDE - 5) * SIDE


def test_a_mask_without_a_pixel_that_counts_has_loss_zero() -> None:
    trainable = build(dice=1.0)
    empty = torch.full((1, SIDE, SIDE), IGNORED, dtype=torch.uint8)
    logits = torch.randn(1, 2, SIDE, SIDE, requires_grad=True)
    loss = trainable._image_losses(logits, empty)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert logits.grad is not None and not logits.grad.any()


def test_an_absent_class_is_left_out_of_the_figures() -> None:
    trainable = build()
    trainable.model = Painter(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(-1, -1, SIDE, SIDE))  # type: ignore[assignment]
    plain = batch()
    plain.labels.zero_()
    figures = trainable.metrics(trainable.evaluate(plain))
    assert "iou/roof" not in figures
    assert figures["iou/ground"] == figures["miou"] == figures["accuracy"] == 1.0


@pytest.mark.parametrize("settings", [{}, {"class_weights": [1.0, 3.0]}, {"dice": 0.5}])
def test_the_loss_of_a_batch_is_the_mean_of_its_parts(settings: dict[str, Any]) -> None:
    trainable = build(**settings)
    whole = batch(6)
    whole.labels[0, :9] = IGNORED  # images with few pixels that count weigh as much as others
    logits = torch.randn(6, 2, SIDE, SIDE)
    each = trainable._image_losses(logits, whole.labels)
    parts = [trainable._image_losses(logits[k : k + 1], whole.labels[k : k + 1]) for k in range(6)]
    torch.testing.assert_close(each, torch.cat(parts))


def test_cross_entropy_is_torchs_own_where_all_pixels_count() -> None:
    weights = [1.0, 3.0]
    trainable = build(class_weights=weights)
    one, logits = batch(1), torch.randn(1, 2, SIDE, SIDE)
    wanted = nn.functional.cross_entropy(logits, one.labels.long(), torch.tensor(weights))
    torch.testing.assert_close(trainable._image_losses(logits, one.labels)[0], wanted)


def test_dice_is_zero_for_a_perfect_guess_and_one_for_the_opposite() -> None:
    wanted = batch(2).labels.long()
    perfect = nn.functional.one_hot(wanted, 2).permute(0, 3, 1, 2) * 100.0
    counted = torch.ones_like(wanted, dtype=torch.bool)
    assert dice_loss(perfect, wanted, counted).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert dice_loss(-perfect, wanted, counted).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


def test_bright_and_dark_images_are_learnt_by_heart() -> None:
    trainable, samples = build(), batch(8)
    samples.labels[:4], samples.labels[4:] = 0, 1  # as fine as a network of stride 8 can see here
    samples.images[:4], samples.images[4:] = 20, 220
    trainable.set_training(True)
    optimizer = torch.optim.SGD(trainable.model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for step in range(15):
        optimizer.zero_grad()
        again = Batch(samples.images, samples.labels, samples.indices, 0, step)
        loss = trainable.loss(trainable.model, again)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
