"""Encoders have the promised shape, and weights are handed over whole or not at all."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import get_weight

from trainables.models.encoders import build_encoder
from trainables.models.segmentation import VggEncoder
from trainables.models.weights import (
    IMAGENET_WEIGHTS,
    WeightsError,
    fingerprint,
    initialize,
    load_encoder,
    read_state_file,
)
from trainables.training_config import TrainableConfig

State = dict[str, Tensor]


def encoder(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_encoder("resnet18", small_input=False)[0]


def copied(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(module: nn.Module, state: State) -> bool:
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def config(**settings: Any) -> TrainableConfig:
    return TrainableConfig.model_validate({"dataset": "target"} | settings)


def torchvision_state(seed: int = 1, name: str = "resnet18") -> State:
    """What torchvision's whole model holds, classifier and all."""
    torch.manual_seed(seed)
    return dict(getattr(torchvision.models, name)(weights=None).state_dict())


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet50", 2048)])
@pytest.mark.parametrize("small_input", [False, True])
def test_an_encoder_gives_a_vector_an_image(name: str, width: int, small_input: bool) -> None:
    built, promised = build_encoder(name, small_input)
    assert promised == width
    for side in (8, 33):
        assert built.eval()(torch.zeros(2, 3, side, side)).shape == (2, width)


@pytest.mark.parametrize(("small_input", "side"), [(False, 8), (True, 32)])
def test_small_input_keeps_the_resolution_up_to_the_first_stage(
    small_input: bool, side: int
) -> None:
    built, _ = build_encoder("resnet18", small_input)
    sides = []
    built.layer1.register_forward_hook(lambda module, given, result: sides.append(result.shape[-1]))
    built.eval()(torch.zeros(1, 3, 32, 32))
    assert sides == [side]


def test_an_encoder_has_no_classifier_and_follows_the_torch_seed() -> None:
    assert not [name for name in encoder().state_dict() if name.startswith(("fc", "head"))]
    assert same(encoder(0), copied(encoder(0)))
    assert not same(encoder(0), copied(encoder(1)))


def test_random_weights_are_those_it_was_built_with() -> None:
    built = encoder()
    before = copied(built)
    loaded = initialize(built, config(weights="random"))
    assert same(built, before)
    assert (loaded.source, loaded.tensors) == ("random initialisation", len(before))
    assert loaded.fingerprint == fingerprint(before)


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    given, built = copied(encoder(1)), encoder(0)
    torch.save(given, tmp_path / "mine.pt")
    loaded = initialize(built, config(weights=str(tmp_path / "mine.pt")))
    assert same(built, given)
    assert str(loaded) == f"120 encoder tensors from mine.pt, fingerprint {fingerprint(given)}"


def put_in_cache(state: State, home: Path, name: str, patch: pytest.MonkeyPatch) -> None:
    """Where torchvision looks before it downloads."""
    patch.setenv("TORCH_HOME", str(home))
    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(state, folder / os.path.basename(get_weight(IMAGENET_WEIGHTS[name]).url))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])  # vgg16: see test_dense
def test_imagenet_weights_come_from_torchvision(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = torchvision_state(name=name)
    put_in_cache(state, tmp_path, name, monkeypatch)
    built, _ = build_encoder(name, small_input=False)
    loaded = initialize(built, config(backbone=name, weights="imagenet"))
    assert same(built, state)
    assert IMAGENET_WEIGHTS[name] in loaded.source


def test_imagenet_weights_may_be_older_than_batchnorms_counter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as in resnet18-5c106cde.pth: 102 tensors, which torchvision itself loads
    state = {k: v for k, v in torchvision_state().items() if "num_batches" not in k}
    torchvision.models.resnet18(weights=None).load_state_dict(state, strict=True)
    put_in_cache(state, tmp_path, "resnet18", monkeypatch)
    built = encoder()
    initialize(built, config(weights="imagenet"))
    assert all(torch.equal(built.state_dict()[k], state[k]) for k in state if "fc." not in k)


def test_a_whole_model_of_torchvision_fits_without_its_classifier() -> None:
    built, state = encoder(), torchvision_state()
    assert {"fc.weight", "fc.bias"} <= set(state)
    assert load_encoder(built, state, "it").tensors == 120
    assert same(built, state)


def test_a_parents_prefixed_encoder_fits_without_its_head() -> None:
    built, given = encoder(0), copied(encoder(1))
    state = {f"encoder.{name}": value for name, value in given.items()}
    state |= {"head.weight": torch.zeros(3, 512), "head.bias": torch.zeros(3)}
    loaded = load_encoder(built, state, "parent")
    assert same(built, given)
    assert loaded.fingerprint == fingerprint(given)


def without(state: State) -> State:
    return {name: value for name, value in state.items() if name != "layer4.1.bn2.running_var"}


def renamed(state: State) -> State:
    return {name.replace("layer2.0.conv1", "layer2.0.conv9"): v for name, v in state.items()}


def misshapen(state: State) -> State:
    return state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}


def extra(state: State) -> State:
    return state | {"layer5.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without, ["1 errors", "missing layer4.1.bn2.running_var"]),
        (renamed, ["missing layer2.0.conv1.weight", "unknown layer2.0.conv9.weight"]),
        (misshapen, ["conv1.weight is (64, 3, 3, 3), must be (64, 3, 7, 7)"]),
        (extra, ["unknown layer5.weight"]),
        (lambda state: {}, ["100 errors", "..."]),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(
    damage: Callable[[State], State], words: list[str]
) -> None:
    built = encoder(0)
    before = copied(built)
    with pytest.raises(WeightsError, match="weights of their.pt do not fit") as caught:
        load_encoder(built, damage(copied(encoder(1))), "their.pt")
    assert all(word in str(caught.value) for word in words)
    assert same(built, before)


def test_a_fingerprint_changes_with_one_bit_a_name_a_shape_or_a_type() -> None:
    state = {"a": torch.arange(6.0), "b": torch.tensor(7)}
    bit = state | {"a": state["a"].view(torch.int32).bitwise_xor(1).view(torch.float32)}
    others = [
        bit,
        {"c": state["a"], "b": state["b"]},
        state | {"a": state["a"].view(2, 3)},
        state | {"b": torch.tensor([7])},
        {"a": state["b"], "b": state["a"]},
        {"a": torch.zeros(1), "b": torch.zeros(1)},
        {"a": torch.zeros(1), "b": torch.zeros(1, dtype=torch.int32)},
    ]
    prints = [fingerprint(state), *(fingerprint(other) for other in others)]
    assert len(set(prints)) == len(prints)
    assert all(len(digits) == 12 and int(digits, 16) >= 0 for digits in prints)


def test_a_fingerprint_ignores_order_and_memory_layout() -> None:
    state = {"a": torch.randn(2, 3, 4, 4), "b": torch.zeros(2, dtype=torch.bfloat16)}
    last = {"b": state["b"], "a": state["a"].to(memory_format=torch.channels_last)}
    assert fingerprint(last) == fingerprint(state)


def test_a_state_dict_inside_a_checkpoint_is_found(tmp_path: Path) -> None:
    path, state = tmp_path / "a.pt", {"w": torch.ones(2)}
    for content in (
        state,
        {"state_dict": state, "epoch": 3},
        {"model": state, "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}}},
        {"model_state": state, "best_acc1": torch.tensor(71.2)},
        {"epoch": 1, "model": {"state_dict": state}},
    ):
        torch.save(content, path)
        assert torch.equal(read_state_file(path)["w"], state["w"])


class Trap:
    """A pickle that makes a folder when it is opened by a careless reader."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("save", [torch.save, lambda v, path: path.write_bytes(pickle.dumps(v))])
def test_code_in_a_weights_file_is_refused_and_not_run(tmp_path: Path, save: Any) -> None:
    path, sprung = tmp_path / "trap.pt", tmp_path / "sprung"
    save({"w": Trap(str(sprung))}, path)
    with pytest.raises(WeightsError, match="trap.pt is no state-dict file"):
        read_state_file(path)
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no state dict"),
        ({"state_dict": {}}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict"),
        (torch.zeros(1), "holds no state dict"),
        ({"epoch": 3, "optimizer": {"lr": 0.1}}, "holds no state dict, only epoch, optimizer"),
        ({"state_dict": {"w": [1.0]}}, "holds no state dict, only state_dict"),
    ],
)
def test_a_file_of_anything_else_is_refused(tmp_path: Path, content: object, words: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=words):
        read_state_file(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [None, b"", b"no weights at all"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gone.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="gone.pt is no state-dict file"):
        initialize(encoder(), config(weights=str(path)))


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


def zeros(state: State) -> State:
    return {name: value * 0 for name, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "backbone.", "model.", "online_encoder.net.", "encoder_q.", "module.encoder_q.",
     "model.backbone.", "student.backbone.", "_orig_mod.", "net.0."],
)  # fmt: skip
@pytest.mark.parametrize(
    "slow", ["", "target_encoder.net.", "encoder_k.", "momentum_backbone.", "teacher.backbone."]
)
def test_a_prefix_of_other_programs_is_taken_off_and_said(prefix: str, slow: str) -> None:
    built, given = encoder(0), copied(encoder(1))
    state = prefixed(prefix, given | {"fc.weight": torch.zeros(3, 512)})
    state |= {"queue": torch.zeros(3), "projector.0.weight": torch.zeros(4, 512)}
    if slow:
        state = prefixed(slow, zeros(given)) | state
    loaded = load_encoder(built, state, "their.pt")
    assert same(built, given)
    assert f"from their.pt without the prefix {prefix}, fingerprint" in str(loaded)


def test_two_networks_that_fit_are_not_chosen_from() -> None:
    state = prefixed("left.", copied(encoder(1))) | prefixed("right.", copied(encoder(2)))
    with pytest.raises(WeightsError, match=r"hold 2 networks .* \(left\., right\.\): write one"):
        load_encoder(encoder(), state, "their.pt")


def test_of_models_under_two_keys_the_one_that_learns_is_taken(tmp_path: Path) -> None:
    built, given, path = encoder(0), copied(encoder(1)), tmp_path / "a.pt"
    torch.save({"teacher": zeros(given), "student": prefixed("module.", given)}, path)
    loaded = load_encoder(built, read_state_file(path), "a.pt")
    assert same(built, given)
    assert "prefix student.module." in str(loaded)


def test_half_precision_is_read() -> None:
    built, given = encoder(0), copied(encoder(1))
    half = {n: v.half() if v.is_floating_point() else v for n, v in given.items()}
    load_encoder(built, half, "half.pt")
    assert same(built, {n: v.float() if v.is_floating_point() else v for n, v in half.items()})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda t: t * float("nan"), "conv1.weight has 9408 values that are not finite"),
        (lambda t: t.double() * 1e300, "conv1.weight has 9408 values that are not finite"),
        (lambda t: t.to(torch.int64), "conv1.weight is torch.int64, must be floating-point"),
        (lambda t: t > 0, "conv1.weight is torch.bool, must be floating-point"),
        (lambda t: t.to(torch.complex64), "conv1.weight is torch.complex64, must be floating"),
        (lambda t: t.to_sparse(), "conv1.weight is sparse or quantized"),
    ],
)
def test_numbers_that_are_not_finite_or_not_floating_are_refused(
    value: Callable[[torch.Tensor], torch.Tensor], words: str
) -> None:
    state = copied(encoder(1))
    state["conv1.weight"] = value(state["conv1.weight"].abs() + 1)
    with pytest.raises(WeightsError, match=words):
        load_encoder(encoder(0), state, "their.pt")


def test_a_refusal_shows_what_is_there_beside_what_is_missing() -> None:
    state = {"features.0.weight": torch.zeros(64, 3, 11, 11), "features.0.bias": torch.zeros(64)}
    with pytest.raises(WeightsError) as caught:
        load_encoder(encoder(), state, "alexnet.pt")
    assert "missing conv1.weight;" in str(caught.value)
    there = "there are 2 tensors, features.0.weight (64, 3, 11, 11), features.0.bias (64,): give"
    assert there in str(caught.value)


@pytest.mark.parametrize("form", ["features.0.weight", "0.weight", "model.features.0.weight"])
def test_vggs_convolutions_alone_start_an_fcn(tmp_path: Path, form: str) -> None:
    torch.manual_seed(1)
    stack = VggEncoder(8).features.state_dict()
    torch.save({form.replace("0.weight", n): v for n, v in stack.items()}, tmp_path / "vgg.pth")
    encoder = VggEncoder(8)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    transfer = load_encoder(encoder, read_state_file(tmp_path / "vgg.pth"), "vgg.pth")
    after = encoder.state_dict()
    assert all(torch.equal(after[f"features.{name}"], value) for name, value in stack.items())
    above = [name for name in after if name.startswith("classifier.")]
    assert all(torch.equal(after[name], before[name]) for name in above)
    assert transfer.tensors == 26
    assert "convolutions alone, 4 tensors above them are random" in str(transfer)


@pytest.mark.parametrize("lacking", ["features.28.weight", "classifier.0.weight"])
def test_a_part_of_vggs_convolutions_or_layers_is_refused(lacking: str) -> None:
    state = VggEncoder(8).state_dict()
    del state[lacking]
    with pytest.raises(WeightsError, match=f"missing {lacking}"):
        load_encoder(VggEncoder(8), state, "vgg.pth")
