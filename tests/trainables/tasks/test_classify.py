"""What `train: head, late, full` learns, and what it leaves bit for bit as it was."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainables.dataset import DataInfo
from trainables.tasks.classify import Classify
from trainables.trainable import Batch
from trainables.transforms.geometry import normalize
from trainables.transforms.mixing import MIX_DRAWS, mix

SIDE = 8
CLASSES = ("a", "b", "c")
LEARNT: dict[str, Callable[[str], bool]] = {
    "head": lambda name: name.startswith("head."),
    "late": lambda name: name.startswith(("head.", "encoder.layer4.")),
    "full": lambda name: True,
}


def classify(**settings: Any) -> Classify:
    torch.manual_seed(0)
    config = Classify.Config.model_validate({"dataset": "target"} | settings)
    return Classify(config, DataInfo(CLASSES, SIDE))


def batch(epoch: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    return Batch(images, torch.arange(8) % 3, torch.arange(8), seed=0, epoch=epoch)


def train(trainable: Classify, steps: int = 2) -> None:
    """As the worker does: only what requires a gradient is given to the optimizer."""
    trainable.set_training(True)
    learnt = [p for p in trainable.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learnt, lr=0.05, momentum=0.9, weight_decay=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        trainable.loss(trainable.model, batch(step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def changes(trainable: Classify, steps: int = 2) -> dict[str, bool]:
    """name → whether training changed a bit of that parameter or buffer."""
    before = {name: value.clone() for name, value in trainable.model.state_dict().items()}
    train(trainable, steps)
    after = trainable.model.state_dict()
    return {name: not torch.equal(value, after[name]) for name, value in before.items()}


@torch.inference_mode()
def evaluated(trainable: Classify) -> dict[str, float]:
    trainable.set_training(False)
    return trainable.metrics(trainable.evaluate(batch()))


def parameters(trainable: Classify) -> set[str]:
    return {name for name, _ in trainable.model.named_parameters()}


def test_the_head_has_an_output_a_class() -> None:
    assert classify().model(torch.zeros(2, 3, SIDE, SIDE)).shape == (2, len(CLASSES))


@pytest.mark.parametrize("part", LEARNT)
def test_gradients_reach_exactly_what_is_trained(part: str) -> None:
    trainable = classify(train=part)
    train(trainable, 1)
    with_gradient = {n for n, p in trainable.model.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name in parameters(trainable) if LEARNT[part](name)}
    assert all(p.grad.any() for p in trainable.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("part", LEARNT)
def test_frozen_layers_are_bit_identical_and_learnt_ones_move(part: str) -> None:
    trainable = classify(train=part, frozen_batchnorm="eval")
    changed = changes(trainable)
    assert {name for name in changed if changed[name]} == {n for n in changed if LEARNT[part](n)}


@pytest.mark.parametrize("part", [part for part in LEARNT if part != "head"])
def test_frozen_batchnorm_may_follow_the_batches_without_learning(part: str) -> None:
    trainable = classify(train=part, frozen_batchnorm="train")
    changed = changes(trainable)
    learnt = {name for name in parameters(trainable) if LEARNT[part](name)}
    buffers = set(changed) - parameters(trainable)
    assert {name for name in changed if changed[name]} == learnt | buffers
    assert len(buffers) == 60


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_frozen_layers_stay_frozen_after_an_evaluation_between_epochs(mode: str) -> None:
    trainable = classify(train="late", frozen_batchnorm=mode)
    train(trainable, 1)
    trainable.set_training(False)
    assert not any(module.training for module in trainable.model.modules())
    before = trainable.model.encoder.bn1.running_mean.clone()  # type: ignore[union-attr,operator]
    train(trainable, 1)
    still = torch.equal(before, trainable.model.encoder.bn1.running_mean)  # type: ignore[arg-type]
    assert still == (mode == "eval")


def test_a_frozen_encoder_gives_the_same_features_in_training_and_evaluation() -> None:
    trainable, images = classify(train="head"), normalize(batch().images)
    trainable.set_training(True)
    features = trainable.model.encoder(images)
    trainable.set_training(False)
    assert torch.equal(features, trainable.model.encoder(images))
    assert not features.requires_grad


class Fixed(nn.Module):
    """Says the same for every image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits, self.seen = torch.tensor(logits), torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        self.seen = images
        return self.logits.expand(len(images), -1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_label_smoothing_spreads_that_much_over_all_classes(smoothing: float) -> None:
    logits = [2.0, 0.0, -1.0]
    logs = torch.tensor(logits).log_softmax(0).tolist()
    labels = batch().labels.tolist()
    of_label = sum(logs[label] for label in labels) / len(labels)
    wanted = -(1 - smoothing) * of_label - smoothing * sum(logs) / len(logs)
    loss = classify(label_smoothing=smoothing).loss(Fixed(logits), batch())
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_label_smoothing_is_a_share_below_one(value: float) -> None:
    with pytest.raises(ValidationError, match="label_smoothing"):
        classify(label_smoothing=value)


def test_label_smoothing_is_left_out_of_the_evaluation() -> None:
    plain, smoothed = (evaluated(classify(label_smoothing=value)) for value in (0.0, 0.5))
    assert plain == smoothed


def test_figures_are_the_mean_loss_and_the_request_of_correct_answers() -> None:
    trainable = classify()
    trainable.model = Fixed([0.0, 3.0, 0.0])  # type: ignore[assignment]
    figures = evaluated(trainable)
    right, wrong = torch.tensor([0.0, 3.0, 0.0]).log_softmax(0)[[1, 0]].tolist()
    assert figures["accuracy"] == 3 / 8  # labels 0 1 2 0 1 2 0 1
    assert figures["loss"] == pytest.approx(-(3 * right + 5 * wrong) / 8, rel=1e-6)


@pytest.mark.parametrize("augment", ["flip", "crop", "crop_flip", "resized_crop_flip"])
def test_training_images_are_augmented_anew_each_epoch_and_evaluated_ones_never(
    augment: str,
) -> None:
    trainable, model = classify(augment=augment), Fixed([0.0, 0.0, 0.0])
    seen = []
    for epoch in (1, 1, 2):
        trainable.loss(model, batch(epoch))
        seen.append(model.seen)
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    trainable.model = model  # type: ignore[assignment]
    trainable.evaluate(batch())
    assert torch.equal(model.seen, normalize(batch().images))


def test_without_augmentation_training_sees_the_images_themselves() -> None:
    model = Fixed([0.0, 0.0, 0.0])
    classify(augment="none").loss(model, batch())
    assert torch.equal(model.seen, normalize(batch().images))


def test_a_head_on_a_frozen_backbone_in_train_mode_is_refused_with_the_cure() -> None:
    with pytest.raises(ValidationError, match="set frozen_batchnorm to eval, or train to late"):
        classify(train="head", frozen_batchnorm="train")


def test_the_reports_head_has_its_layers_and_learns() -> None:
    trainable = classify(head="mlp", train="head")
    head = trainable.model.head
    shapes = [tuple(layer.weight.shape) for layer in head if isinstance(layer, nn.Linear)]
    assert shapes == [(1024, 512), (512, 1024), (len(CLASSES), 512)]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.4, 0.3]
    changed = changes(trainable)
    assert {name for name in changed if changed[name]} == {n for n in changed if "head." in n}


@pytest.mark.parametrize("settings", [{"backbone_lr_factor": 0.1}, {"layer_lr_decay": 0.8}])
def test_a_frozen_encoder_has_no_rate(settings):
    with pytest.raises(ValueError, match="train 'head' trains no layer of the encoder"):
        Classify.Config(dataset="d", train="head", **settings)
    assert Classify.Config(dataset="d", train="late", **settings)


KEPT = {"train": "head", "augment": "none", "keep_features": True}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**KEPT, "augment": "flip"}, "needs features that do not change"),
        ({**KEPT, "train": "late"}, "needs features that do not change"),
        *(
            ({**KEPT, **changing}, f"do not change: remove {next(iter(changing))}")
            for changing in (
                {"color_jitter": 0.1},
                {"policy": "randaugment"},
                {"erase": 0.5},
                {"mixup": 0.2},
                {"cutmix": 1.0},
                {"ema": 0.9},
                {"view_size": 6},
            )
        ),
        ({"lr_sweep": [0.1]}, "set keep_features to true"),
        ({**KEPT, "lr_sweep": [0.1, 0.2, 0.1]}, "lists a learning rate twice"),
        ({**KEPT, "lr_sweep": [0.1], "clip_grad_norm": 1.0}, "bound the gradient of all heads"),
    ],
)
def test_what_cannot_be_done_on_kept_features_is_said(settings, said):
    with pytest.raises(ValueError, match=said):
        Classify.Config(dataset="d", **settings)
    assert Classify.Config(dataset="d", **KEPT, lr_sweep=[0.1, 0.2]).lr_sweep == [0.1, 0.2]


def test_a_view_is_cut_from_the_larger_image_and_evaluation_takes_its_center() -> None:
    model = Fixed([0.0, 0.0, 0.0])
    trainable = classify(view_size=6, augment="crop")
    trainable.loss(model, batch())
    assert model.seen.shape == (8, 3, 6, 6)
    trainable.model = model  # type: ignore[assignment]
    trainable.evaluate(batch())
    assert torch.equal(model.seen, normalize(batch().images[:, :, 1:7, 1:7]))
    with pytest.raises(ValueError, match="view_size 9 is more than the 8 px of the images"):
        Classify.check(classify(view_size=9).config, DataInfo(CLASSES, SIDE))


CHANGES: list[dict[str, Any]] = [
    {"color_jitter": 0.4},
    {"policy": "randaugment"},
    {"policy": "trivialaugment"},
    {"erase": 0.9},
    {"color_jitter": 0.4, "policy": "randaugment", "operations": 1, "magnitude": 20, "erase": 0.5},
]


@pytest.mark.parametrize("settings", CHANGES)
def test_more_changes_depend_on_seed_epoch_and_sample_alone(settings: dict[str, Any]) -> None:
    trainable, whole = classify(**settings), batch()
    seen = []
    for given in (whole, whole.parts(3)[1], batch(2)):
        model = Fixed([0.0, 0.0, 0.0])
        trainable.loss(model, given)
        seen.append(model.seen)
    torch.testing.assert_close(seen[1], seen[0][3:6])
    assert seen[0].shape == seen[2].shape and not torch.equal(seen[0], seen[2])
    plain = Fixed([0.0, 0.0, 0.0])
    classify().loss(plain, whole)
    assert not torch.allclose(plain.seen, seen[0], atol=0.01)


def test_colors_and_policies_are_for_rgb() -> None:
    for settings in ({"color_jitter": 0.1}, {"policy": "randaugment"}):
        with pytest.raises(ValueError, match="color_jitter and policy are for RGB, not for 4"):
            Classify.check(classify(**settings).config, DataInfo(CLASSES, SIDE, 4))


def with_others() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (8, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    own = batch()
    both = (torch.cat(pair) for pair in (
        (own.images, images), (own.labels, torch.arange(1, 9) % 3), (own.indices, own.indices + 20)
    ))  # fmt: skip
    return Batch(*both, seed=0, epoch=1).with_partners()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("settings", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1}])
def test_the_loss_of_mixed_images_is_torchs_with_mixed_targets(
    settings: dict[str, Any], smoothing: float
) -> None:
    trainable = classify(augment="none", label_smoothing=smoothing, **settings)
    model, given = Fixed([2.0, 0.0, -1.0]), with_others()
    assert trainable.MIXES and given.partners is not None
    loss = trainable.loss(model, given)
    draws = given.uniform(MIX_DRAWS)
    images, others = normalize(given.images), normalize(given.partners.images)
    both = (trainable.config.mixup, trainable.config.cutmix)
    mixed, shares = mix(images, others, draws, *both)
    assert torch.equal(model.seen, mixed) and not torch.equal(mixed, images)
    ones = (
        nn.functional.one_hot(each, 3).float() for each in (given.labels, given.partners.labels)
    )
    own, other = ones
    targets = shares[:, None] * own + (1 - shares[:, None]) * other
    logits = torch.tensor([2.0, 0.0, -1.0]).expand(8, -1)
    wanted = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(loss, wanted)
    parts = [trainable.loss(Fixed([2.0, 0.0, -1.0]), part) for part in given.parts(2)]
    torch.testing.assert_close(sum(parts) / 2, loss)


def test_the_average_of_the_weights_is_evaluated_and_handed_on() -> None:
    trainable = classify(ema=0.9)
    assert trainable.average is not None
    trainable.encoder_loaded()
    wanted = {name: value.clone() for name, value in trainable.model.state_dict().items()}
    assert torch.equal(wanted["encoder.conv1.weight"], wanted["trained.encoder.conv1.weight"])
    trainable.set_training(True)
    learnt = [p for p in trainable.model.parameters() if p.requires_grad]
    assert len(learnt) == len(list(trainable.average.trained.parameters()))
    optimizer = torch.optim.SGD(learnt, lr=0.05)
    for step in range(1, 13):
        optimizer.zero_grad()
        trainable.loss(trainable.model, batch(step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        trainable.after_step(step / 12)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in trainable.average.trained.state_dict().items():
            if value.is_floating_point():
                wanted[name] = decay * wanted[name] + (1 - decay) * value
    found = trainable.model.state_dict()
    for name in trainable.average.trained.state_dict():
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert not torch.equal(found["encoder.conv1.weight"], found["trained.encoder.conv1.weight"])
    trainable.set_training(False)
    images = normalize(batch().images)
    assert torch.equal(
        trainable.model(images), trainable.model.head(trainable.model.encoder(images))
    )


@pytest.mark.parametrize("part", LEARNT)
def test_with_an_average_the_same_parts_learn(part: str) -> None:
    trainable = classify(ema=0.9, train=part)
    trainable.encoder_loaded()
    before = {name: value.clone() for name, value in trainable.model.state_dict().items()}
    train(trainable)
    after = trainable.model.state_dict()
    trained = {
        n for n in after if n.startswith("trained.") and not torch.equal(before[n], after[n])
    }
    assert trained == {n for n in after if n.startswith("trained.") and LEARNT[part](n[8:])}


def test_a_model_that_predicts_one_class_alone_is_told() -> None:
    trainable = classify()
    trainable.model = Fixed([0.0, 3.0, 0.0])  # type: ignore[assignment]
    sums = trainable.evaluate(batch())
    assert sums["predicted"].tolist() == [0, 8, 0] and trainable.one_class(sums) == "b"
    sums["predicted"][2] += 1
    assert trainable.one_class(sums) == ""
