"""Builds networks that give every pixel a class: FCN-32s on VGG16, DeepLabV3 on ResNet50.

Each is (B, 3, H, W) normalized float → `out` (B, K, H, W) logits, DeepLabV3 in training also `aux`
of the same shape. The weights of `encoder` can be transferred: its tensors have the names of
torchvision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models.encoders import widened
from trainables.models.modules import Encoding

_PAD = 100  # px around the image before the first convolution (arXiv:1411.4038 and its models)
STRIDE, _KERNEL = 32, 64  # of FCN-32s: upsampling
_OFFSETS = {"image": 19, "layer6": 16}  # where the image begins in what is upsampled, by padding


class Fcn32s(Encoding):
    """Fully convolutional VGG16 with one prediction at stride 32 (arXiv:1411.4038, section 4)."""

    def __init__(
        self, classes: int, hidden: int, channels: int = 3, padding: str = "image"
    ) -> None:
        """hidden, padding: as in `VggEncoder`."""
        super().__init__(VggEncoder(hidden, channels, padding))
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
    input of that layer, which is a small part of the work where images are small.
    """

    def __init__(self, hidden: int, channels: int = 3, padding: str = "image") -> None:
        super().__init__()
        from torchvision.models import vgg16  # seconds to load: only who builds a model pays

        self.features = vgg16(weights=None).features
        if channels != 3:
            self.features[0] = widened(self.features[0], channels)
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                layer.ceil_mode = True  # as in the paper's models, which round up
        if padding == "image":
            self.features[0].padding = (_PAD, _PAD)
        around = 3 if padding == "layer6" else 0
        self.classifier = nn.Sequential(
            nn.Conv2d(512, hidden, 7, padding=around), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Conv2d(hidden, hidden, 1), nn.ReLU(inplace=True), nn.Dropout(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.classifier(self.features(images))
        return maps


class DeepLabV3(Encoding):
    """Atrous convolution at output stride 8, ASPP with rates 12, 24, 36 and an auxiliary head on
    layer 3 (arXiv:1706.05587), from torchvision's parts."""

    def __init__(self, classes: int, channels: int = 3) -> None:
        from torchvision.models import resnet50
        from torchvision.models.segmentation.deeplabv3 import DeepLabHead
        from torchvision.models.segmentation.fcn import FCNHead

        encoder = resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        encoder.fc = nn.Identity()
        if channels != 3:
            encoder.conv1 = widened(encoder.conv1, channels)
        super().__init__(encoder)
        self.head = DeepLabHead(2048, classes)
        self.auxiliary = FCNHead(1024, classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        middle, last = _resnet_maps(self.encoder, images)
        logits = {"out": self._resized(self.head(last), images)}
        if self.training:
            logits["aux"] = self._resized(self.auxiliary(middle), images)
        return logits

    @staticmethod
    def _resized(scores: Tensor, images: Tensor) -> Tensor:
        return F.interpolate(scores, images.shape[2:], mode="bilinear", align_corners=False)


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
