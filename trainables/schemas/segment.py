"""Segments images: a class for every pixel, by FCN-32s on VGG16 or DeepLabV3 on a ResNet."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from trainables.backbones import check_maps
from trainables.config import NonNegativeFloat, PositiveFloat, PositiveInt
from trainables.dataset import DataInfo
from trainables.models.encoder_shapes import Shapes, encoder_shapes, vgg_shapes
from trainables.networks.timm_names import check_timm, is_timm
from trainables.schemas.trainable import TrainableSchema
from trainables.training_config import ScheduleName, TrainableConfig

_BACKBONES = {
    "fcn32s": ("vgg16", "vgg16_slim"),
    "deeplabv3": ("resnet50", "resnet18", "resnet34", "resnet101", "resnet50_slim"),
}
_ALL = [name for names in _BACKBONES.values() for name in names]
_STRIDE = 32  # px of the image for each place of the networks' coarsest maps


def check_dense(name: str) -> str:
    """Return the name of a backbone of a segmentation. Raises ValueError for an unknown one."""
    if is_timm(name):
        check_timm(name)
    elif name not in _ALL:
        raise ValueError(
            f"no backbone {name!r} of a segmentation (there are: {', '.join(_ALL)}, and timm:NAME "
            "for deeplabv3)"
        )
    return name


DenseBackbone = Annotated[
    str,
    AfterValidator(check_dense),
    WithJsonSchema({"type": "string", "enum": [*_ALL, "timm:NAME"]}),
]


class SegmentConfig(TrainableConfig):
    network: Literal["fcn32s", "deeplabv3"] = Field(description="the segmentation network")
    backbone: DenseBackbone = Field(
        "resnet50",
        description="the network below: vgg16 for fcn32s, the others for deeplabv3; `_slim`: a "
        "quarter of its channels, and BatchNorm in VGG16, to learn small images within minutes",
    )
    hidden: PositiveInt = Field(4096, description="fcn32s: channels of layers 6 and 7")
    padding: Literal["image", "layer6"] = Field(
        "image",
        description="fcn32s: where zeros are added; image: 100 px around it, as in the paper; "
        "layer6: around the input of that layer, much less work where images are small",
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        8, description="images per step, over all workers"
    )
    lr: PositiveFloat = 0.01
    schedule: ScheduleName = "poly"
    crop: Annotated[int, Field(ge=32)] | None = Field(
        None, description="side in px of the squares it learns from; default: the image's side"
    )
    scales: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = Field(
        [0.5, 2.0], description="smallest and largest enlargement before the crop"
    )
    class_weights: Annotated[list[PositiveFloat], Field(min_length=2)] | None = Field(
        None,
        description="weight of a pixel of each class in the loss, by class id; default: all equal",
    )
    watch: list[str] = Field(
        [], description="names of images whose masks are drawn; default: three of validation"
    )
    color_jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="strength of random changes of brightness, contrast and saturation of the "
        "training images, and of a quarter of it of the hue",
    )
    dice: NonNegativeFloat = Field(0.0, description="weight of the Dice loss beside cross-entropy")

    @model_validator(mode="after")
    def _parts_fit(self) -> "SegmentConfig":
        own = _BACKBONES[self.network]
        of_timm = self.network == "deeplabv3" and is_timm(self.backbone)
        if self.backbone not in own and not of_timm:
            raise ValueError(
                f"{self.network} stands on {own[0]}, not {self.backbone}: set backbone to "
                f"{' or '.join(own)}"
            )
        if self.weights == "imagenet" and self.backbone.endswith("_slim"):
            raise ValueError(
                f"weights 'imagenet': there are none for {self.backbone}: set backbone to {own[0]}"
            )
        if self.small_input:
            raise ValueError("segment needs its backbone's first layers: remove `small_input`")
        if self.scales[0] > self.scales[1]:
            raise ValueError(f"scales {self.scales} must be smallest, then largest")
        if self.network == "fcn32s" and self.weights == "imagenet" and self.hidden != 4096:
            raise ValueError(
                f"weights 'imagenet' have 4096 channels in layers 6 and 7, not {self.hidden}: "
                "set hidden to 4096"
            )
        return self


class SegmentSchema(TrainableSchema):
    """Minimizes the cross-entropy over the pixels that count.

    It is the mean over all of them in the global batch, with `class_weights` the weighted mean, as
    torch's `cross_entropy`. The Dice loss is a mean over images.
    """

    Config = SegmentConfig
    FIGURES = ("loss", "miou", "accuracy")
    SELECT = "val/miou"
    PREDICTS = "masks"
    NEEDS = "masks"

    @classmethod
    def check(cls, config: Any, data: DataInfo) -> None:
        if is_timm(config.backbone):
            check_maps(config.backbone, data.channels)
        side = config.crop or data.size
        if side < _STRIDE:
            raise ValueError(
                f"learns from squares of {side} px, smaller than the networks' stride: set crop, "
                f"or the data set's size, to {_STRIDE} or more"
            )
        if config.color_jitter and data.channels != 3:
            raise ValueError(
                f"color_jitter is for RGB, not for {data.channels} channels: set it to 0"
            )
        if config.class_weights and len(config.class_weights) != len(data.classes):
            raise ValueError(
                f"class_weights has {len(config.class_weights)} numbers for {len(data.classes)} "
                f"classes ({', '.join(data.classes)})"
            )

    @classmethod
    def encoder_shapes(cls, config: Any, data: DataInfo) -> Shapes:
        if config.network == "fcn32s":
            return vgg_shapes(config.hidden, data.channels, config.backbone == "vgg16_slim")
        return encoder_shapes(config.backbone, False, data.channels, data.size)
