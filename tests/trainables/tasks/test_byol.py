"""BYOL against independent implementations, and what its target network does."""

import copy
import math

import pytest
import torch
import torchvision
from torch import Tensor, nn

from tests.trainables.test_trainable import batch, build
from trainables.tasks.byol import distance, momentum
from trainables.trainable import Batch

SMALL = {"backbone": "resnet18", "hidden": 32, "projection": 16, "batch_size": 8}


def small(**settings: object):
    return build("byol", **{**SMALL, **settings})


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_that_of_lightly():
    lightly = pytest.importorskip("lightly.loss")
    theirs = lightly.NegativeCosineSimilarity()
    one, two = noise(8, 16), noise(8, 16, seed=1)
    assert float(distance(one, two).mean()) == pytest.approx(2 + 2 * float(theirs(one, two)))


def test_loss_gradients_and_target_equal_those_of_lightlys_modules():
    """Same weights, same views, one step of SGD and of the moving average."""
    heads = pytest.importorskip("lightly.models.modules.heads")
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    ours = small().model.train()
    backbone = copy.deepcopy(ours.encoder)
    projector = heads.BYOLProjectionHead(512, 32, 16)
    predictor = heads.BYOLPredictionHead(16, 32, 16)
    with torch.no_grad():  # theirs has no bias in the first layer
        for mlp in (ours.projector, ours.predictor, ours.target_projector):
            mlp[0].bias.zero_()
    _copy(ours.projector, projector.layers)
    _copy(ours.predictor, predictor.layers)
    target, target_projector = copy.deepcopy(backbone), copy.deepcopy(projector)
    deactivate_requires_grad(target)
    deactivate_requires_grad(target_projector)
    one, two = noise(8, 3, 16, 16), noise(8, 3, 16, 16, seed=1)

    loss = ours(one, two).mean()
    loss.backward()
    p1, p2 = (predictor(projector(backbone(view).flatten(1))) for view in (one, two))
    with torch.no_grad():
        z2, z1 = (target_projector(target(view).flatten(1)) for view in (two, one))
    criterion = NegativeCosineSimilarity()
    theirs = 4 + 2 * (criterion(p1, z2) + criterion(p2, z1))
    theirs.backward()

    torch.testing.assert_close(loss, theirs)
    for name, parameter in backbone.named_parameters():
        mine = ours.encoder.get_parameter(name).grad
        torch.testing.assert_close(mine, parameter.grad, atol=1e-4, rtol=1e-3)
    mine, their = ours.predictor[-1].weight.grad, predictor.layers[-1].weight.grad
    torch.testing.assert_close(mine, their, atol=1e-5, rtol=1e-4)

    with torch.no_grad():
        for parameter in [*backbone.parameters(), *ours.encoder.parameters()]:
            parameter.add_(parameter.grad, alpha=-0.1)
    update_momentum(backbone, target, m=0.9)
    ours.follow(0.9)
    for name, parameter in target.named_parameters():
        mine = ours.target_encoder.get_parameter(name)
        torch.testing.assert_close(mine, parameter, atol=1e-4, rtol=1e-3)


def _copy(ours: nn.Sequential, theirs: nn.Sequential) -> None:
    kinds = (nn.Linear, nn.BatchNorm1d)
    pairs = zip(
        [m for m in ours if isinstance(m, kinds)],
        [m for m in theirs if isinstance(m, kinds)],
        strict=True,
    )
    for mine, their in pairs:
        state = {k: v for k, v in mine.state_dict().items() if k in their.state_dict()}
        their.load_state_dict(state)


def test_loss_gradients_and_target_equal_those_of_byol_pytorch():
    """Same weights and views. Its views share a batch, so BatchNorm is held still for both."""
    package = pytest.importorskip("byol_pytorch")
    ours = small().model.train()
    net = torchvision.models.resnet18()
    net.conv1, net.maxpool = copy.deepcopy(ours.encoder.conv1), nn.Identity()  # small_input
    net.load_state_dict(ours.encoder.state_dict(), strict=False)
    learner = package.BYOL(
        net, image_size=16, hidden_layer="avgpool", projection_size=16, projection_hidden_size=32,
        augment_fn=nn.Identity(), augment_fn2=lambda images: images.flip(-1),
        moving_average_decay=0.9, use_simplicial_embeddings=False,
    )  # fmt: skip
    learner.online_encoder.projector.load_state_dict(ours.projector.state_dict())
    learner.online_predictor.load_state_dict(ours.predictor.state_dict())
    learner.reset_moving_average()
    images = noise(8, 3, 16, 16)
    learner(images)  # makes its target
    for module in [*learner.modules(), *ours.modules()]:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            module.eval()
    theirs = learner(images)
    theirs.backward()
    loss = ours(images, images.flip(-1)).mean()
    loss.backward()
    torch.testing.assert_close(loss, theirs)
    for name, parameter in ours.encoder.named_parameters():
        wanted = net.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, wanted, atol=1e-4, rtol=1e-3)
    with torch.no_grad():
        for online in (net, ours.encoder):
            online.conv1.weight.add_(1)
    learner.update_moving_average()
    ours.follow(0.9)
    target = learner.target_encoder.net.conv1.weight
    torch.testing.assert_close(ours.target_encoder.conv1.weight, target)


def test_the_target_starts_as_a_copy_follows_and_has_no_gradient():
    trainable = small()
    model = trainable.model
    with torch.no_grad():
        model.encoder.conv1.weight.add_(1)  # as a hand-off does
    trainable.encoder_loaded()
    assert torch.equal(model.target_encoder.conv1.weight, model.encoder.conv1.weight)
    trainable.set_training(True)
    trainable.loss(model, batch("byol")).backward()
    assert all(p.grad is None for p in model.target_encoder.parameters())
    assert all(p.grad is None for p in model.target_projector.parameters())
    before = model.target_encoder.conv1.weight.clone()
    with torch.no_grad():
        model.encoder.conv1.weight.add_(1)
    trainable.after_step(0.5)
    torch.testing.assert_close(model.target_encoder.conv1.weight, before + 0.01)


def test_momentum_rises_to_one_with_the_cosine_and_stays_without():
    rising = small(target_momentum=0.996, momentum_schedule="cosine").config
    assert momentum(rising, 0.0) == pytest.approx(0.996)
    assert momentum(rising, 0.5) == pytest.approx(0.998)
    assert momentum(rising, 1.0) == pytest.approx(1.0)
    assert momentum(small().config, 0.7) == 0.99


def test_batchnorm_sees_one_view_at_a_time():
    model = small().model.train()
    one, two = noise(8, 3, 16, 16), noise(8, 3, 16, 16, seed=1) * 5 + 3
    alone = copy.deepcopy(model)
    with torch.no_grad():
        model(one, two)
        for view in (one, two):
            alone.encoder(view)
    for name, value in alone.encoder.named_buffers():
        torch.testing.assert_close(model.encoder.get_buffer(name), value)


def test_the_two_views_of_an_image_differ_and_other_images_do_not_matter():
    trainable = small()
    whole = batch("byol", 8)
    one, two = trainable._views(whole)
    assert not torch.allclose(one, two)
    half = Batch(whole.images[:4], whole.labels[:4], whole.indices[:4], whole.seed, whole.epoch)
    torch.testing.assert_close(trainable._views(half)[0], one[:4])


def test_validation_loss_is_the_same_in_any_batch_and_any_epoch():
    trainable = small()
    trainable.set_training(False)
    whole = batch("byol", 8, epoch=0)
    with torch.inference_mode():
        sums = [trainable.evaluate(part) for part in whole.parts(3)]
        total = {name: sum(each[name] for each in sums) for name in sums[0]}
        wanted = trainable.metrics(trainable.evaluate(whole))
    assert trainable.metrics(total)["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert 0 <= wanted["loss"] <= 8


@pytest.mark.parametrize(
    ("settings", "labelled", "metric"),
    [
        ({}, True, "val/knn_accuracy"),
        ({}, False, "epoch"),
        ({"probe_every": 0}, True, "epoch"),
        ({"select": "loss"}, True, "val/loss"),
        ({"select": "last"}, True, "epoch"),
        ({"select": "knn"}, True, "val/knn_accuracy"),
    ],
)
def test_the_epoch_is_chosen_by_neighbors_where_there_are_labels(settings, labelled, metric):
    trainable = small(**settings)
    config = trainable.settled(trainable.config, labelled)
    assert trainable.select(config.model_dump()) == metric
    assert trainable.settled(config, labelled) == config


def test_neighbors_cannot_choose_without_labels_or_probes():
    trainable = small(select="knn")
    with pytest.raises(ValueError, match="select 'knn' asks the classes of validation images"):
        trainable.settled(trainable.config, False)
    with pytest.raises(ValueError, match="`probe_every: 0` makes none"):
        small(select="knn", probe_every=0)


def test_defaults_are_the_reports_recipe():
    config = build("byol").config
    assert (config.backbone, config.batch_size, config.epochs) == ("resnet50", 256, 300)
    assert (config.optimizer, config.lr, config.weight_decay) == ("adamw", 1e-3, 0.01)
    assert config.views == "report" and math.isclose(config.target_momentum, 0.99)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_loss_of_both_views_at_once_is_that_of_each_bit_for_bit(kind):
    model, views = small().model.eval(), [noise(9, 3, 8, 8), noise(9, 3, 8, 8, seed=1)]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind is torch.bfloat16):
        predicted = [model.predictor(model.projector(model.encoder(view))) for view in views]
        with torch.no_grad():
            targets = [model.target_projector(model.target_encoder(view)) for view in views]
        wanted = distance(predicted[0], targets[1]) + distance(predicted[1], targets[0])
        found = model(*views)
    assert torch.equal(found, wanted)
    learned = [p for p in model.parameters() if p.requires_grad]
    for one, two in zip(
        torch.autograd.grad(found.mean(), learned),
        torch.autograd.grad(wanted.mean(), learned),
        strict=True,
    ):
        assert torch.equal(one, two)
