"""Backbones by name: ResNets of torchvision, and those of own code, handed on and carried."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import read
from orchestrator.planning.prepare import prepare, run_code_version
from orchestrator.storage.home import Home
from trainables.backbones import own_encoder
from trainables.data.datasets import DatasetConfig
from trainables.dataset import DataInfo
from trainables.engine.checkpoints import InMemory
from trainables.engine.loop import fit
from trainables.engine.step import build_optimizer
from trainables.loading.decoded_cache import load_table
from trainables.models.encoder_shapes import encoder_shapes, resnet_shapes
from trainables.models.encoders import build_encoder
from trainables.models.weights import load_encoder
from trainables.networks.layers import late_layers
from trainables.own_code import finder
from trainables.tasks.classify import Classify
from trainables.tasks.predictor import MODEL, Classifier, describe_model, load
from trainables.trainable import Batch
from trainables.training_config import TrainableConfig

NET = """
from torch import nn


def build(channels):
    convolution = nn.Conv2d(channels, 6, 3)
    return nn.Sequential(convolution, nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten()), 6
"""
STUDY = """
study: nets
code: [zz_net.py]
data: {digits: {type: digits, limit: 60}}
stages:
  first: {trainable: rotation, config: {dataset: digits, backbone: zz_net:build, epochs: 1}}
  then: {trainable: classify, after: first, config: {dataset: digits, backbone: zz_net:build, epochs: 1}}
"""  # noqa: E501


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "zz_net.py"
    path.write_text(NET, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    finder.use(finder.sources_in({"zz_net": path}))
    yield path
    finder.use({})


@pytest.mark.parametrize("name", ["resnet34", "resnet101"])
def test_the_shapes_of_a_plan_are_those_of_the_network(name: str) -> None:
    with torch.device("meta"):
        encoder, _ = build_encoder(name, small_input=False)
    built = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert list(resnet_shapes(name, False).items()) == list(built.items())


def test_an_own_backbone_is_trained_handed_on_and_predicts_from_its_model(
    net: Path, tmp_path: Path
) -> None:
    table = load_table(DatasetConfig(type="digits", limit=60), tmp_path / "cache")
    config = Classify.Config(dataset="digits", backbone="zz_net:build", epochs=1, batch_size=16)
    kept = InMemory()
    result = fit(Classify, config, table, checkpoints=kept)
    assert 0 <= result.test["test/accuracy"] <= 1
    state = dict(kept.weights(1))
    encoder, width = build_encoder("zz_net:build", False)
    assert width == 6
    assert load_encoder(encoder, state, "a parent").tensors == len(encoder.state_dict())
    assert encoder_shapes("zz_net:build", False) == {
        key: tuple(value.shape) for key, value in encoder.state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pt")
    described = json.dumps(describe_model("classify", config, table))
    (tmp_path / MODEL).write_text(described, encoding="utf-8")
    net.unlink()
    finder.use({})
    model = load(tmp_path)
    assert isinstance(model, Classifier)
    assert len(model.predict(torch.zeros(2, 8, 8, 3, dtype=torch.uint8).numpy())) == 2


def test_the_key_follows_the_code_of_the_backbone(net: Path, home: Home) -> None:
    study = str(net.parent / "study.yaml")

    def keys() -> list[str]:
        return [run.key for run in prepare(read(study), None, home).runs]

    first = keys()
    net.write_text(NET + "# a comment\n", encoding="utf-8")
    assert keys() == first
    net.write_text(NET.replace("nn.ReLU", "nn.GELU"), encoding="utf-8")
    assert not set(keys()) & set(first)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs: 1}}\n  then", "epochs: 1, small_input: true}}\n  then", "small_input is for Res"),
        ("epochs: 1}}\n  then", "epochs: 1, weights: imagenet}}\n  then", "there are none for zz_"),
        (
            "backbone: zz_net:build",
            "backbone: resnet5",
            "no backbone 'resnet5' (did you mean 'resnet50'?",
        ),
        ("backbone: zz_net:build", "backbone: zz_net:bild", "zz_net defines no bild: correct the"),
        ("backbone: zz_net:build", "backbone: zz_net:nn", "must be a function from channels"),
        ("build, epochs: 1}}\n", "build, epochs: 1, train: late}}\n", "unknown key"),
    ],
)
def test_what_does_not_fit_is_refused(net: Path, old: str, new: str, said: str) -> None:
    file = net.parent / "study.yaml"
    file.write_text(STUDY.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(StudyError) as error:
        read(str(file))
    assert any(said in line for line in error.value.errors), error.value.errors


def test_late_layers_of_an_own_backbone_are_not_known(net: Path, home: Home) -> None:
    file = net.parent / "study.yaml"
    changed = STUDY.replace("build, epochs: 1}}\n", "build, epochs: 1, train: late}}\n")
    file.write_text(changed.replace("rotation", "classify"), "utf-8")
    with pytest.raises(StudyError, match="train 'late' is for networks by name"):
        prepare(read(str(file)), None, home)


def test_what_an_own_function_must_return_is_said(net: Path) -> None:
    net.write_text("def build(channels):\n    return 3\n", encoding="utf-8")
    finder.use(finder.sources_in({"zz_net": net}))
    with pytest.raises(ValueError, match="must return .encoder, width."):
        own_encoder("zz_net:build", 3)
    with pytest.raises(ValueError, match="no backbone 'vgg'"):
        TrainableConfig(dataset="d", backbone="vgg")


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_32", "efficientnet_b0"])
def test_frozen_parts_of_a_network_stay_as_they_are(name: str) -> None:
    """One step of SGD at a high rate; `late` moves the last quarter of the layers alone."""
    samples = torch.randint(0, 255, (4, 3, 32, 32), dtype=torch.uint8)
    batch = Batch(samples, torch.tensor([0, 1, 0, 1]), torch.arange(4), seed=0, epoch=1)
    config = Classify.Config(
        dataset="d", backbone=name, train="late", augment="none", layer_lr_decay=0.5
    )
    trainable = Classify(config, DataInfo(("a", "b"), 32))
    trainable.set_training(True)
    encoder = trainable.model.encoder
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    optimizer = build_optimizer(config, trainable.model)
    assert len({group["lr"] for group in optimizer.param_groups}) > 1
    trainable.loss(trainable.model, batch).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    late = {id(parameter) for parameter in late_layers(encoder)}
    learning = {key for key, value in encoder.named_parameters() if id(value) in late}
    moved = {key for key, value in encoder.state_dict().items() if not value.equal(before[key])}
    assert {key for key in moved if "num_batches" not in key and "running" not in key} <= learning
    assert len(moved) > len(learning) / 2
    assert {key.rpartition(".")[0] for key in moved} <= {n.rpartition(".")[0] for n in learning}


@pytest.mark.parametrize(
    ("settings", "side", "said"),
    [
        ({"backbone": "vit_b_16"}, 8, "patches of 16 px, and 8 px are no multiple"),
        ({"backbone": "convnext_tiny"}, 8, "needs images of 32 px or more, not 8"),
    ],
)
def test_a_plan_refuses_images_that_do_not_fit(
    settings: dict[str, str], side: int, said: str, tmp_path: Path, home: Home
) -> None:
    stage = {"trainable": "rotation", "config": {"dataset": "digits", "epochs": 1, **settings}}
    study = {"study": "s", "data": {"digits": {"type": "digits"}}, "stages": {"a": stage}}
    (tmp_path / "s.yaml").write_text(json.dumps(study), encoding="utf-8")
    with pytest.raises(StudyError, match=said):
        prepare(read(str(tmp_path / "s.yaml")), None, home)


def test_small_input_is_for_resnets() -> None:
    with pytest.raises(ValueError, match="small_input is for ResNets: remove it, vit_b_16"):
        TrainableConfig(dataset="d", backbone="vit_b_16", small_input=True)


def test_a_network_by_name_counts_for_its_runs_alone() -> None:
    def asked(backbone: str) -> str:
        config = Classify.Config(dataset="d", backbone=backbone).model_dump()
        return run_code_version(
            "classify", config, lambda *names, choice: " ".join([*names, choice])
        )

    assert "trainables.networks." not in asked("resnet18")
    assert "trainables.networks.torchvision_networks" in asked("vit_b_16")
    assert "trainables.networks.timm_networks" in asked("timm:test_vit")
    assert asked("timm:test_vit").endswith(f" timm {timm.__version__}")
