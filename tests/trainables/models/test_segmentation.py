"""Networks that give every pixel a class: shapes, the paper's offsets, torchvision's names."""

import pytest
import torch
from torch import nn
from torchvision.models import vgg16
from torchvision.models.segmentation import deeplabv3_resnet50

from trainables.models.encoders import build_encoder
from trainables.models.segmentation import DeepLabV3, Fcn32s, bilinear
from trainables.models.weights import WeightsError, load_encoder


@pytest.mark.parametrize("padding", ["image", "layer6"])
@pytest.mark.parametrize("shape", [(32, 32), (33, 65), (64, 40)])
def test_fcn32s_gives_every_pixel_a_score_at_any_size(shape: tuple[int, int], padding: str) -> None:
    net = Fcn32s(classes=3, hidden=8, padding=padding).eval()
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, *shape))["out"].shape == (1, 3, *shape)


def test_fcn32s_starts_without_an_opinion_and_upsamples_bilinearly() -> None:
    net = Fcn32s(classes=3, hidden=8).eval()
    with torch.inference_mode():
        assert not net(torch.randn(1, 3, 32, 32))["out"].any()
        wanted = torch.nn.functional.interpolate(
            torch.arange(12.0).view(1, 1, 3, 4), scale_factor=4, mode="bilinear"
        )
        made = nn.functional.conv_transpose2d(
            torch.arange(12.0).view(1, 1, 3, 4), bilinear(1, 8), stride=4
        )
    inside = made[:, :, 2:-2, 2:-2]  # as large as the interpolation; equal away from the border
    torch.testing.assert_close(inside[:, :, 2:-2, 2:-2], wanted[:, :, 2:-2, 2:-2])


@pytest.mark.parametrize("padding", ["image", "layer6"])
def test_a_shift_by_the_stride_shifts_what_fcn32s_says(padding: str) -> None:
    """The paper's offset, and ours: a prediction stands over what it was made from."""
    torch.manual_seed(0)
    net = Fcn32s(classes=2, hidden=8, padding=padding).eval()
    nn.init.normal_(net.score.weight)
    image = torch.zeros(1, 3, 160, 160)
    image[:, :, 64:96, 64:96] = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        nothing = net(torch.zeros(1, 3, 160, 160))["out"]
        change = (net(image)["out"] - nothing).abs().sum((0, 1))
    rows, columns = torch.meshgrid(torch.arange(160.0), torch.arange(160.0), indexing="ij")
    centre = [float((axis * change).sum() / change.sum()) for axis in (rows, columns)]
    assert centre == pytest.approx([79.5, 79.5], abs=16)


def test_vgg_weights_by_torchvisions_names_fill_the_encoder_exactly() -> None:
    with torch.device("meta"):  # drawing 138 million first weights twice takes a minute
        theirs, net = vgg16(weights=None), Fcn32s(classes=2, hidden=4096)
    theirs, net = theirs.to_empty(device="cpu"), net.to_empty(device="cpu")
    source = {name: value.uniform_(-0.01, 0.01) for name, value in theirs.state_dict().items()}
    found = load_encoder(net.encoder, source, "vgg16")
    assert (
        found.tensors == len(source) - 2
    )  # all but the last layer, which knows ImageNet's classes
    assert torch.equal(net.encoder.classifier[0].weight.flatten(1), source["classifier.0.weight"])
    with torch.inference_mode():  # a convolution over one position is the fully connected layer
        given = torch.randn(1, 512, 7, 7)
        wanted = nn.functional.linear(
            given.flatten(1), source["classifier.0.weight"], source["classifier.0.bias"]
        )
        torch.testing.assert_close(
            net.encoder.classifier[0](given).flatten(1), wanted, atol=1e-4, rtol=1e-4
        )
    with pytest.raises(WeightsError, match="classifier.0.weight is"):
        load_encoder(Fcn32s(classes=2, hidden=8).encoder, source, "vgg16")


def test_deeplabv3_is_torchvisions_network_with_a_handed_on_encoder() -> None:
    torch.manual_seed(0)
    theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=True)
    mine = DeepLabV3(classes=3)
    encoder = {n.removeprefix("backbone."): v for n, v in theirs.state_dict().items()
               if n.startswith("backbone.")}  # fmt: skip
    load_encoder(mine.encoder, encoder, "theirs")
    mine.head.load_state_dict(theirs.classifier.state_dict())
    mine.auxiliary.load_state_dict(theirs.aux_classifier.state_dict())
    images = torch.randn(2, 3, 48, 64)
    with torch.inference_mode():
        wanted = theirs.eval()(images)
        found = mine.eval()(images)
        torch.testing.assert_close(found["out"], wanted["out"])
        assert found.keys() == {"out"}
    mine.train()
    assert mine(images)["aux"].shape == (2, 3, 48, 64)


def test_an_encoder_that_learnt_another_task_fits_deeplabv3() -> None:
    torch.manual_seed(0)
    learnt, _ = build_encoder("resnet50", small_input=False)
    mine = DeepLabV3(classes=3)
    found = load_encoder(mine.encoder, learnt.state_dict(), "byol")
    assert found.tensors == len(learnt.state_dict())
    with torch.inference_mode():
        same = [torch.equal(value, learnt.state_dict()[name])
                for name, value in mine.encoder.state_dict().items()]  # fmt: skip
    assert all(same)


@pytest.mark.parametrize("side", [64, 80])
def test_slim_networks_have_the_form_of_the_whole_ones(side: int) -> None:
    """Layer by layer, with a quarter of the channels. Layer 1 needs no projection of the 64."""
    images = torch.randn(2, 3, side, side)
    with torch.device("meta"):
        whole = DeepLabV3(classes=3)
    slim = DeepLabV3(classes=3, backbone="resnet50_slim")
    names = [name for name in whole.state_dict() if "layer1.0.downsample" not in name]
    assert list(slim.state_dict()) == names
    for name, value in slim.encoder.state_dict().items():
        if name.startswith("layer") and value.ndim == 4:
            assert 4 * len(value) == len(whole.encoder.state_dict()[name]), name
    logits = slim(images)
    assert logits["out"].shape == logits["aux"].shape == (2, 3, side, side)
    fcn = Fcn32s(classes=3, hidden=8, padding="layer6", slim=True)
    assert fcn(images)["out"].shape == (2, 3, side, side)
    widths = [m.out_channels for m in fcn.encoder.features if isinstance(m, torch.nn.Conv2d)]
    assert widths == [16, 16, 32, 32, 64, 64, 64, *[128] * 6]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in fcn.encoder.features) == 13


@pytest.mark.parametrize(
    ("backbone", "width", "stride"),
    [("resnet18", 512, 8), ("resnet34", 512, 8), ("resnet101", 2048, 8),
     ("timm:test_resnet", 96, 8),
     ("timm:test_efficientnet", 64, 8), ("timm:test_convnext", 64, 8)],
)  # fmt: skip
def test_deeplabv3_stands_on_other_networks(backbone: str, width: int, stride: int) -> None:
    with torch.device("meta"):
        net = DeepLabV3(classes=3, backbone=backbone)
        plain, _ = build_encoder(backbone, small_input=False)
        images = torch.zeros(2, 3, 96, 64)
        logits = net(images)
        middle, last = net.maps_of(net.encoder, images)
    assert logits["out"].shape == logits["aux"].shape == (2, 3, 96, 64)
    assert last.shape == (2, net.width, 96 // stride, 64 // stride) and net.width == width
    assert middle.shape[2:] in (last.shape[2:], (12, 8))
    shapes = {key: value.shape for key, value in net.encoder.state_dict().items()}
    assert shapes == {key: value.shape for key, value in plain.state_dict().items()}


def test_every_parameter_of_deeplabv3_that_learns_has_a_gradient() -> None:
    torch.manual_seed(0)
    net = DeepLabV3(classes=2, backbone="timm:test_efficientnet")
    logits = net(torch.randn(2, 3, 64, 64))
    (logits["out"].square().mean() + logits["aux"].square().mean()).backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    frozen = {name for name, value in net.encoder.named_parameters() if not value.requires_grad}
    assert len(frozen) < 5


def test_a_dilated_resnet18_sees_as_far_as_the_one_with_strides() -> None:
    """At the places that both have, the last maps are equal but for what the border adds."""
    torch.manual_seed(0)
    strided, _ = build_encoder("resnet18", small_input=False)
    dense = DeepLabV3(classes=2, backbone="resnet18")
    load_encoder(dense.encoder, strided.state_dict(), "strided")
    images = torch.randn(1, 3, 1024, 1024)
    maps: list[torch.Tensor] = []
    strided.layer4.register_forward_hook(lambda module, given, result: maps.append(result))
    with torch.inference_mode():
        strided.eval()(images)
        _, last = dense.eval().maps_of(dense.encoder, images)
    inner = slice(12, -12)
    torch.testing.assert_close(last[:, :, ::4, ::4][..., inner, inner], maps[0][..., inner, inner])


@pytest.mark.parametrize(
    ("name", "said"),
    [("timm:test_vit", "takes images of one size"), ("timm:fastvit_t8", "no maps at a stride of")],
)
def test_a_network_without_dense_maps_is_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DeepLabV3(classes=2, backbone=name)
