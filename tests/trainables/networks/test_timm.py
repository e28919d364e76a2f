"""Networks of timm by name: known without loading it, built without a download, handed on whole."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import read
from orchestrator.planning.prepare import prepare
from orchestrator.storage.home import Home
from trainables.data.datasets import DatasetConfig
from trainables.engine.checkpoints import InMemory
from trainables.engine.loop import fit
from trainables.loading.decoded_cache import load_table
from trainables.models import state_file
from trainables.models.encoder_shapes import encoder_shapes
from trainables.models.encoders import build_encoder
from trainables.models.weights import load_encoder, read_state_file
from trainables.networks import timm_names
from trainables.networks.layers import late_layers, layers_of
from trainables.networks.timm_names import check_timm
from trainables.tasks.classify import Classify
from trainables.tasks.predictor import MODEL, Classifier, describe_model, load
from trainables.tasks.rotation import Rotation
from trainables.training_config import TrainableConfig

SMALL = ("test_vit", "test_convnext", "test_resnet", "test_efficientnet")


def test_the_names_are_those_that_timm_lists() -> None:
    assert timm_names._known() == set(timm.list_models())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:convnext_tny", "has no network 'convnext_tny': did you mean 'timm:convnext_tiny'"),
        ("timm:zzz", r"has no network 'zzz'(?!: did)"),
        ("timm:test_vit.r160_in1k", r"names weights .r160_in1k., .* write timm:test_vit, and give"),
    ],
)
def test_an_unknown_name_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainableConfig(dataset="d", backbone=name)


def test_without_timm_the_command_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ValueError, match=r"pip install 'vision-orchestrator.timm.'"):
        check_timm("timm:test_vit")


@pytest.mark.parametrize("name", SMALL)
def test_what_a_plan_states_is_what_is_built_and_its_layers_are_known(name: str) -> None:
    encoder, width = build_encoder(f"timm:{name}", False, 5, 64)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert list(encoder_shapes(f"timm:{name}", False, 5, 64).items()) == list(shapes.items())
    assert encoder(torch.zeros(2, 5, 64, 64)).shape == (2, width)
    layers = layers_of(encoder)
    found = [id(parameter) for layer in layers for parameter in layer]
    assert sorted(found) == sorted(map(id, encoder.parameters()))
    assert len(layers) >= 5 and all(any(p.ndim > 1 for p in layer) for layer in layers)
    assert 0 < len(late_layers(encoder)) < len(found) / 2


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_a_file_of_timms_whole_model_fits(name: str, tmp_path: Path) -> None:
    """In both forms, at the images' own size; the positions of a ViT are interpolated as timm's."""
    torch.manual_seed(1)
    whole = timm.create_model(name, pretrained=False)
    state = whole.state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    shapes = encoder_shapes(f"timm:{name}", False, 3, 64)
    for path in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        note = "positions interpolated from 10 x 10 patches to 4" if name == "test_vit" else ""
        assert state_file.check_file(path, shapes) == note
        encoder, _ = build_encoder(f"timm:{name}", False, side=64)
        assert load_encoder(encoder, read_state_file(path), "file").tensors == len(shapes)
        same = timm.create_model(name, pretrained=False, num_classes=0, **_size(name))
        for key, value in encoder.state_dict().items():
            if key != "pos_embed":
                assert torch.equal(value, state[key])
        if name == "test_vit":
            resampled = timm.layers.resample_abs_pos_embed(state["pos_embed"], (4, 4))
            torch.testing.assert_close(encoder.state_dict()["pos_embed"], resampled)
        assert same.state_dict().keys() == encoder.state_dict().keys()


def _size(name: str) -> dict[str, Any]:
    return {"img_size": 64} if name == "test_vit" else {}


def test_a_network_of_timm_is_trained_handed_on_and_predicts(tmp_path: Path) -> None:
    table = load_table(DatasetConfig(type="digits", limit=60, size=16), tmp_path / "cache")
    own = {"dataset": "digits", "backbone": "timm:test_vit", "epochs": 1, "batch_size": 16}
    first = InMemory()
    fit(Rotation, Rotation.Config(**own), table, checkpoints=first)
    encoder, _ = build_encoder("timm:test_vit", False, side=16)
    parent = dict(first.weights(1))
    assert load_encoder(encoder, parent, "a parent").tensors == len(encoder.state_dict())
    config = Classify.Config(**own, train="late", layer_lr_decay=0.7)
    kept = InMemory()
    fit(Classify, config, table, checkpoints=kept)
    torch.save(dict(kept.weights(1)), tmp_path / "weights.pt")
    described = describe_model("classify", config, table)
    assert described["requirements"] == [f"timm=={timm.__version__}"]
    assert "code" not in described
    (tmp_path / MODEL).write_text(json.dumps(described), encoding="utf-8")
    model = load(tmp_path)
    assert isinstance(model, Classifier)
    assert len(model.predict(torch.zeros(2, 8, 8, 3, dtype=torch.uint8).numpy())) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "cuts images into patches of 16 px, and 8 px are no multiple"),
        ({"backbone": "timm:convnext_atto"}, "does not take images of 8 x 8 px with 3 channels"),
        ({"weights": "imagenet"}, "weights 'imagenet' are torchvision's: give a file of timm:"),
        ({"small_input": True}, "small_input is for ResNets: remove it, timm:test_vit"),
    ],
)
def test_what_cannot_be_is_refused_by_a_plan(
    settings: dict[str, Any], said: str, tmp_path: Path, home: Home
) -> None:
    config = {"dataset": "digits", "backbone": "timm:test_vit", "epochs": 1, **settings}
    study = {"study": "s", "data": {"digits": {"type": "digits"}},
             "stages": {"a": {"trainable": "classify", "config": config}}}  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study), encoding="utf-8")
    with pytest.raises(StudyError, match=said):
        prepare(read(str(tmp_path / "s.yaml")), None, home)


def test_another_version_of_timm_makes_another_run(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"dataset": "digits", "backbone": "timm:test_vit", "epochs": 1}
    study = {"study": "s", "data": {"digits": {"type": "digits", "size": 16}},
             "stages": {"a": {"trainable": "classify", "config": config}}}  # fmt: skip
    (tmp_path / "s.yaml").write_text(json.dumps(study), encoding="utf-8")

    def key() -> str:
        return prepare(read(str(tmp_path / "s.yaml")), None, home).runs[0].key

    first = key()
    assert key() == first
    installed = metadata.version

    def newer(name: str) -> str:
        return "99.0" if name == "timm" else installed(name)

    monkeypatch.setattr(metadata, "version", newer)
    assert key() != first
