"""Segmentation: what is learnt, what does not count, the same figures however a batch is cut."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from pydantic import ValidationError
from torch import Tensor, nn

from trainables.dataset import IGNORED, DataInfo
from trainables.engine.step import backward, with_counted
from trainables.models.modules import Encoding
from trainables.numerics.distributed import ALONE, World, data_parallel
from trainables.tasks.segment import Segment, SegmentConfig, dice_loss
from trainables.trainable import Batch
from trainables.transforms.image_and_mask import scaled_crop

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


class Replay(nn.Module):
    """In the place of a network: logits of its own for each image."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": self.logits}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"network": "fcn32s"}, "fcn32s stands on vgg16, not resnet50: set backbone to vgg16"),
        ({"backbone": "resnet50_slim", "weights": "imagenet"}, "none for resnet50_slim"),
        ({"small_input": True}, "remove `small_input`"),
        ({"backbone": "resnet5"}, "no backbone 'resnet5' of a segmentation .there are: vgg16"),
        ({"backbone": "timm:resnet5"}, "has no network 'resnet5': did you mean 'timm:resnet50'"),
        ({"network": "fcn32s", "backbone": "timm:resnet18"}, "on vgg16, not timm:resnet18: set"),
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
        ({"backbone": "timm:test_vit"}, "takes images of one size, and a segmentation learns from"),
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


@pytest.mark.parametrize("settings", [{}, {"dice": 1.0}, {"class_weights": [1.0, 3.0]}])
def test_a_batch_without_a_pixel_that_counts_has_loss_zero(settings: dict[str, Any]) -> None:
    trainable, nothing = build(**settings), batch()
    nothing.labels.fill_(IGNORED)
    logits = torch.randn(1, 2, SIDE, SIDE, requires_grad=True)
    loss = trainable.loss(Painter(logits), nothing)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.tolist() == 0.0
    assert logits.grad is not None and not logits.grad.any()


def test_an_absent_class_is_left_out_of_the_figures() -> None:
    trainable = build()
    trainable.model = Painter(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(-1, -1, SIDE, SIDE))  # type: ignore[assignment]
    plain = batch()
    plain.labels.zero_()
    figures = trainable.metrics(trainable.evaluate(plain))
    assert "iou/roof" not in figures
    assert figures["iou/ground"] == figures["miou"] == figures["accuracy"] == 1.0


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
def test_the_loss_is_torchs_mean_over_all_pixels_of_the_batch(weights: list[float] | None) -> None:
    """An image with few pixels that count has as much of the gradient as these pixels have."""
    trainable, samples = build(class_weights=weights), batch(6)
    samples.labels[0] = IGNORED
    samples.labels[0, 0, :4] = 1
    logits = torch.randn(6, 2, SIDE, SIDE, requires_grad=True)
    given = scaled_crop(samples.images, samples.labels, samples.uniform(5), SIDE, (1.0, 1.0))[1]
    wanted = nn.functional.cross_entropy(
        logits, given.long(), weights and torch.tensor(weights), ignore_index=IGNORED
    )
    loss = trainable.loss(Replay(logits), samples)
    torch.testing.assert_close(loss, wanted)
    (theirs,) = torch.autograd.grad(wanted, logits)
    (ours,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(ours, theirs)
    if weights is None:
        share = float(ours[0].abs().sum() / ours.abs().sum())
        assert share < 4 * 4 / (4 + 5 * SIDE * SIDE)  # image by image it would be about a sixth


def test_evaluation_is_torchs_mean_over_all_pixels_of_all_batches() -> None:
    weights = [1.0, 3.0]
    trainable, samples = build(class_weights=weights), batch(6)
    samples.labels[0, 1:] = IGNORED
    logits = torch.randn(6, 2, SIDE, SIDE)
    sums: dict[str, Tensor] = {}
    for part in (slice(0, 2), slice(2, 6)):
        trainable.model = Replay(logits[part])  # type: ignore[assignment]
        piece = Batch(samples.images[part], samples.labels[part], samples.indices[part], 0, 1)
        for name, value in trainable.evaluate(piece).items():
            sums[name] = sums[name] + value if name in sums else value
    wanted = nn.functional.cross_entropy(
        logits, samples.labels.long(), torch.tensor(weights), ignore_index=IGNORED
    )
    assert trainable.metrics(sums)["loss"] == pytest.approx(float(wanted), rel=1e-6)


class Tiny(Encoding):
    """A network in the place of a large one, with an auxiliary output."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh()))
        self.out, self.aux = nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.encoder(images)
        return {"out": self.out(maps), "aux": self.aux(maps)}


SHARED: dict[str, dict[str, Any]] = {
    "plain": {},
    "weighted": {"class_weights": [1.0, 3.0], "scales": [0.5, 1.5]},
    "dice": {"dice": 0.5},
}


def step_of(case: str, world: World, parts: int) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradients of a batch of five pairs, shared out over ranks and parts."""
    with torch.device("meta"):
        trainable = Segment(config(**SHARED[case]), DataInfo(CLASSES, SIDE))
    torch.manual_seed(0)
    trainable.model = Tiny()
    trainable.set_training(True)
    model = trainable.model if world.size == 1 else data_parallel(trainable.model)
    whole = batch(5)
    whole.labels[0], whole.labels[2, 4:] = IGNORED, IGNORED
    rows = world.share(np.arange(5))
    mine = Batch(whole.images[rows], whole.labels[rows], whole.indices[rows], 0, 1)
    mine = with_counted(trainable, mine, world, 5)
    weight = len(rows) * world.size / 5
    loss = backward(trainable, model, mine, weight, parts, nullcontext) * len(rows)
    gradients = {n: p.grad for n, p in trainable.model.named_parameters() if p.grad is not None}
    return float(world.all_reduce_sum(loss)) / 5, gradients


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    found = {(case, parts): step_of(case, world, parts) for case in SHARED for parts in (1, 2)}
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    dist.destroy_process_group()


def test_two_ranks_and_parts_have_the_loss_and_gradient_of_one_process(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for case in SHARED:
        wanted, gradients = step_of(case, ALONE, 1)
        parted = step_of(case, ALONE, 3)
        assert parted[0] == pytest.approx(wanted, rel=1e-5)
        for loss, theirs in (parted, found[case, 1], found[case, 2]):
            assert loss == pytest.approx(wanted, rel=1e-5)
            assert set(theirs) == set(gradients)
            for name, gradient in gradients.items():
                size = float(gradient.norm())
                assert float((theirs[name] - gradient).norm()) <= 1e-4 * size + 1e-7, (case, name)


def test_colors_of_the_image_change_and_its_mask_does_not() -> None:
    plain, colored = build(), build(color_jitter=0.5)
    samples, before = batch(), plain._crops(batch())
    after = colored._crops(samples)
    assert torch.equal(after[1], before[1]) and not torch.allclose(after[0], before[0])
    assert torch.equal(colored.counted(samples), plain.counted(samples))
    with pytest.raises(ValueError, match="color_jitter is for RGB, not for 4 channels"):
        Segment.check(colored.config, DataInfo(CLASSES, 64, 4))


def test_dice_is_zero_for_a_perfect_guess_and_one_for_the_opposite() -> None:
    wanted = batch(2).labels
    perfect = nn.functional.one_hot(wanted.long(), 2).permute(0, 3, 1, 2) * 100.0
    assert dice_loss(perfect, wanted).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    assert dice_loss(-perfect, wanted).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)


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


def test_a_model_that_predicts_one_class_alone_is_told() -> None:
    trainable = build()
    assert trainable.one_class({"confusion": torch.tensor([[3, 0], [2, 0]])}) == "ground"
    assert trainable.one_class({"confusion": torch.tensor([[3, 0], [2, 1]])}) == ""
