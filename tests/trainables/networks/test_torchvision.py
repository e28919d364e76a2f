"""Networks of torchvision by name: what a plan says of them is what is built, and weights fit."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import get_model, get_weight
from torchvision.models.vision_transformer import interpolate_embeddings

from trainables.models import state_file, weights
from trainables.models.encoder_shapes import encoder_shapes
from trainables.models.encoders import build_encoder
from trainables.models.matching import WeightsError
from trainables.models.weights import initialize, load_encoder
from trainables.networks.names import OTHERS, VITS, check_side, imagenet_weights
from trainables.training_config import TrainableConfig


def flat(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors of ones that take no room in memory or in a file."""
    return {key: torch.ones(()).expand(shape) for key, shape in shapes.items()}


def built(name: str, channels: int = 3, side: int | None = None) -> nn.Module:
    with torch.device("meta"):
        return build_encoder(name, False, channels, side)[0]


@pytest.mark.parametrize("name", OTHERS)
def test_the_tensors_that_a_plan_states_are_those_of_the_network(name: str) -> None:
    side = 7 * 32 if name != "vit_h_14" else 196
    with torch.device("meta"):
        encoder, width = build_encoder(name, False, 5, side)
        images = torch.zeros(2, 5, side, side)
        assert encoder.eval()(images).shape == (2, width)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert list(encoder_shapes(name, False, 5, side).items()) == list(shapes.items())


@pytest.mark.parametrize("name", OTHERS)
def test_every_network_has_weights_of_imagenet_at_torchvision(name: str) -> None:
    assert get_weight(imagenet_weights(name)).url.startswith("https://download.pytorch.org/")


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_32", "efficientnet_b0"])
def test_a_file_of_torchvisions_whole_model_fits_and_is_verified(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    whole = get_model(name, weights=None)
    path = tmp_path / "whole.pth"
    torch.save(whole.state_dict(), path)
    encoder, _ = build_encoder(name, False)
    loaded = load_encoder(encoder, weights.read_state_file(path), "whole.pth")
    state = encoder.state_dict()
    assert loaded.tensors == len(state) == len(whole.state_dict()) - 2
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in state.items())
    shapes = encoder_shapes(name, False)
    assert state_file.check_file(path, shapes) == weights.check_file(path, shapes) == ""
    images = torch.randn(1, 3, 224, 224)
    head = {"convnext": "classifier", "vit": "heads", "efficientnet": "classifier"}
    with torch.inference_mode():
        last = getattr(whole.eval(), head[name.partition("_")[0]])[-1]
        torch.testing.assert_close(last(encoder.eval()(images)), whole(images))
    missing = flat({key: tuple(value.shape) for key, value in whole.state_dict().items()})
    gone = next(key for key in reversed(state) if key.endswith("weight"))
    del missing[gone]
    torch.save(missing, path)
    for check in (state_file.check_file, weights.check_file):
        with pytest.raises(WeightsError, match=f"missing {gone}"):
            check(path, shapes)


def test_weights_of_imagenet_are_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = get_model("efficientnet_b0", weights=None).state_dict()
    file = os.path.basename(get_weight(imagenet_weights("efficientnet_b0")).url)
    torch.save(state, folder / file)
    encoder, _ = build_encoder("efficientnet_b0", False)
    config = TrainableConfig(dataset="d", backbone="efficientnet_b0", weights="imagenet")
    assert "EfficientNet_B0_Weights" in initialize(encoder, config).source
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())


def test_a_vit_takes_positions_that_were_learned_from_images_of_another_size() -> None:
    """As torchvision's own function does it, up to where its corners lie; a plan says it."""
    torch.manual_seed(0)
    state = flat(encoder_shapes("vit_b_32", False))
    row = torch.linspace(-1, 1, 7)
    grid = (row[:, None] + 2 * row).view(1, 49, 1).expand(1, 49, 768)
    token = torch.full((1, 1, 768), 5.0)
    state["encoder.pos_embedding"] = torch.cat([token, grid], 1)
    encoder, _ = build_encoder("vit_b_32", False, side=448)
    loaded = load_encoder(encoder, state, "parent")
    assert "(positions interpolated from 7 x 7 patches to 14)" in str(loaded)
    found = encoder.state_dict()["encoder.pos_embedding"]
    assert torch.equal(found[:, :1], token)
    square = found[0, 1:, 0].view(14, 14)
    inner = slice(3, -3)
    steps = (square[inner, inner].diff(dim=0), square[inner, inner].diff(dim=1))
    for found_step, wanted in zip(steps, (1 / 6, 2 / 6), strict=True):
        torch.testing.assert_close(
            found_step, torch.full_like(found_step, wanted), atol=2e-3, rtol=0
        )
    theirs = interpolate_embeddings(448, 32, dict(state))["encoder.pos_embedding"]
    assert found.shape == theirs.shape
    assert torch.corrcoef(torch.stack([found[0, 1:, 0], theirs[0, 1:, 0]]))[0, 1] > 0.99


def test_a_plan_says_that_positions_are_interpolated(tmp_path: Path) -> None:
    path, shapes = tmp_path / "vit.pth", encoder_shapes("vit_b_32", False, side=64)
    state = flat(encoder_shapes("vit_b_32", False))
    torch.save(state, path)
    said = "positions interpolated from 7 x 7 patches to 2"
    assert state_file.check_file(path, shapes) == weights.check_file(path, shapes) == said
    state["encoder.pos_embedding"] = torch.ones(1, 51, 768)
    torch.save(state, path)
    for check in (state_file.check_file, weights.check_file):
        with pytest.raises(WeightsError, match=r"pos_embedding is \(1, 51, 768\), must be"):
            check(path, shapes)


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("vit_b_16", 100, "patches of 16 px, and 100 px are no multiple: .* to 96 or 112"),
        ("vit_h_14", 8, "patches of 14 px, and 8 px are no multiple: .* size to 14"),
        ("convnext_tiny", 31, "convnext_tiny needs images of 32 px or more, not 31"),
    ],
)
def test_images_that_do_not_fit_are_refused(name: str, side: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_side(name, side)
    with pytest.raises(ValueError, match=said):
        built(name, side=side)


def test_the_smallest_images_that_are_not_refused_can_be_learned_from() -> None:
    for name, side in (("convnext_tiny", 32), ("efficientnet_v2_s", 1), (VITS[1], 32)):
        assert len(built(name, side=side)(torch.zeros(2, 3, side, side, device="meta"))) == 2
