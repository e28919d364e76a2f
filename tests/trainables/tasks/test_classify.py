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
        ({"lr_sweep": [0.1]}, "set keep_features to true"),
        ({**KEPT, "lr_sweep": [0.1, 0.2, 0.1]}, "lists a learning rate twice"),
        ({**KEPT, "lr_sweep": [0.1], "clip_grad_norm": 1.0}, "bound the gradient of all heads"),
    ],
)
def test_what_cannot_be_done_on_kept_features_is_said(settings, said):
    with pytest.raises(ValueError, match=said):
        Classify.Config(dataset="d", **settings)
    assert Classify.Config(dataset="d", **KEPT, lr_sweep=[0.1, 0.2]).lr_sweep == [0.1, 0.2]
