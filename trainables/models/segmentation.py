"""Builds networks that give every pixel a class: FCN-32s on VGG16, DeepLabV3 on a ResNet or on a
network of timm.

Each is (B, 3, H, W) normalized float → `out` (B, K, H, W) logits, DeepLabV3 in training also `aux`
of the same shape. The weights of `encoder` can be transferred: its tensors have the names of
torchvision.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models.encoders import widened
from trainables.models.modules import Encoding
from trainables.networks import timm_networks
from trainables.networks.timm_names import is_timm

_PAD = 100  # px around the image before the first convolution (arXiv:1411.4038 and its models)
STRIDE, _KERNEL = 32, 64  # of FCN-32s: upsampling
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # of ASPP, by stride (arXiv:1706.05587, section 4)
_DILATED = [False, True, True]  # layers 3 and 4 keep the resolution of layer 2: stride 8
_SLIMMER = 4  # a slim encoder has this fraction of the channels
_OFFSETS = {"image": 19, "layer6": 16}  # where the image begins in what is upsampled, by padding


class Fcn32s(Encoding):
    """Fully convolutional VGG16 with one prediction at stride 32 (arXiv:1411.4038, section 4)."""

    def __init__(
        self,
        classes: int,
        hidden: int,
        channels: int = 3,
        padding: str = "image",
        slim: bool = False,
    ) -> None:
        """hidden, padding, slim: as in `VggEncoder`."""
        super().__init__(VggEncoder(hidden, channels, padding, slim))
        self.offset = _OFFSETS[padding]
        self.score = nn.Conv2d(hidden, classes, 1)
        nn.init.zeros_(self.score.weight)  # as in the paper: no class is likelier at the start
        assert self.score.bias is not None
        nn.init.zeros_(self.score.bias)
        self.upscore = nn.ConvTranspose2d(classes, classes, _KERNEL, STRIDE, bias=False)
        self.upscore.weight.data = bilinear(classes, _KERNEL)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[2:]
        scores = self.upscore(self.score(self.encoder(images)))
        return {"out": scores[:, :, self.offset :, self.offset :][:, :, :height, :width]}


class VggEncoder(nn.Module):
    """VGG16's features, and its fully connected layers 6 and 7 as convolutions: (B, 3, H, W) →
    (B, hidden, ~H/32, ~W/32). hidden: 4096 is VGG16's own, which torchvision's weights fit.

    padding: `image` puts 100 px of zeros around it, as in the paper; `layer6` puts 3 around the
    input of that layer, which is a small part of the work where images are small. slim: a quarter
    of the channels, and BatchNorm behind each convolution.
    """

    def __init__(
        self, hidden: int, channels: int = 3, padding: str = "image", slim: bool = False
    ) -> None:
        super().__init__()
        from torchvision.models import vgg16  # seconds to load: only who builds a model pays

        features: Any = _slim_vgg() if slim else vgg16(weights=None).features
        self.features = features
        if channels != 3:
            self.features[0] = widened(self.features[0], channels)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True  # as in the paper's models, which round up
        if padding == "image":
            self.features[0].padding = (_PAD, _PAD)
        around, width = 3 if padding == "layer6" else 0, 512 // _SLIMMER if slim else 512
        self.classifier = nn.Sequential(
            nn.Conv2d(width, hidden, 7, padding=around), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Dropout(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.classifier(self.features(images))
        return maps


def _slim_vgg() -> nn.Sequential:
    """Return VGG16's convolutions and poolings (configuration D of arXiv:1409.1556) with BatchNorm
    and a quarter of the channels, initialized as torchvision initializes VGG16."""
    from torchvision.models.vgg import cfgs, make_layers

    widths = [width if width == "M" else int(width) // _SLIMMER for width in cfgs["D"]]
    features: nn.Sequential = make_layers(widths, batch_norm=True)
    for layer in features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return features


def _slim_resnet50() -> nn.Module:
    """Return ResNet50 at output stride 8 with a quarter of the channels behind `conv1`."""
    from torchvision.models.resnet import Bottleneck, ResNet

    class SlimResNet(ResNet):  # type: ignore[misc]
        def _make_layer(self, block: Any, planes: int, *rest: Any, **named: Any) -> nn.Sequential:
            layer: nn.Sequential = super()._make_layer(block, planes // _SLIMMER, *rest, **named)
            return layer

    return SlimResNet(Bottleneck, [3, 4, 6, 3], replace_stride_with_dilation=_DILATED)


def _dilated_resnet(backbone: str) -> Any:
    """Return a ResNet at output stride 8 with its classifier."""
    from torchvision.models import get_model

    if backbone not in ("resnet18", "resnet34"):
        return get_model(backbone, weights=None, replace_stride_with_dilation=_DILATED)
    resnet = get_model(backbone, weights=None)
    for layer, first, rate in ((resnet.layer3, 1, 2), (resnet.layer4, 2, 4)):
        layer[0].downsample[0].stride = (1, 1)
        convolutions = [conv for block in layer for conv in (block.conv1, block.conv2)]
        convolutions[0].stride = (1, 1)
        for number, convolution in enumerate(convolutions):
            dilation = rate if number else first  # the first one still sees what is not dilated
            convolution.dilation = convolution.padding = (dilation, dilation)
    return resnet


class DeepLabV3(Encoding):
    """Uses atrous convolution at output stride 8 or 16, ASPP with rates 12, 24, 36 or half of them,
    and an auxiliary head on the map before the last (arXiv:1706.05587), from torchvision's parts.

    backbone: a ResNet, all of which have a stride of 8, or `timm:NAME`; resnet50_slim: a quarter of
    the channels in the encoder and in the head above it. Raises ValueError where it has no maps of
    that stride.
    """

    def __init__(self, classes: int, channels: int = 3, backbone: str = "resnet50") -> None:
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
        from torchvision.models.segmentation.fcn import FCNHead

        slim, stride = backbone == "resnet50_slim", 8
        encoder: Any
        if is_timm(backbone):
            encoder, maps = timm_networks.build_dilated(backbone, channels)
            (middle, width), stride = maps.widths, maps.stride
        else:
            encoder = _slim_resnet50() if slim else _dilated_resnet(backbone)
            width = encoder.fc.in_features // (_SLIMMER if slim else 1)
            middle = width // 2
            encoder.fc = nn.Identity()
            if channels != 3:
                encoder.conv1 = widened(encoder.conv1, channels)
        super().__init__(encoder)
        self.width = width
        self.maps_of = timm_networks.last_maps if is_timm(backbone) else _resnet_maps
        rates = _RATES[stride]
        self.head = _slim_head(width, classes) if slim else DeepLabHead(width, classes, rates)
        self.auxiliary = FCNHead(middle, classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        middle, last = self.maps_of(self.encoder, images)
        logits = {"out": self._resized(self.head(last), images)}
        if self.training:
            logits["aux"] = self._resized(self.auxiliary(middle), images)
        return logits

    @staticmethod
    def _resized(scores: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)


def _slim_head(width: int, classes: int) -> nn.Sequential:
    """Return torchvision's `DeepLabHead` with a quarter of its 256 channels."""
    from torchvision.models.segmentation.deeplabv3 import ASPP

    inner = 256 // _SLIMMER
    return nn.Sequential(
        ASPP(width, [12, 24, 36], inner),
        nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
        nn.Conv2d(inner, classes, 1),
    )  # fmt: skip


def _resnet_maps(encoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the feature maps of layer 3 and layer 4, each (B, C, H/8, W/8)."""
    parts = dict(encoder.named_children())
    maps = images
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        maps = parts[name](maps)
    return maps, parts["layer4"](maps)


def bilinear(channels: int, size: int) -> Tensor:
    """Return the weight of a transposed convolution that interpolates bilinearly.

    Returns (channels, channels, size, size), zero between different channels.
    """
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 else factor - 0.5
    line = 1 - (torch.arange(size) - centre).abs() / factor
    weight = torch.zeros(channels, channels, size, size)
    weight[range(channels), range(channels)] = line[:, None] * line
    return weight
