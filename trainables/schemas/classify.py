"""Classifies images: trains from scratch, or fine-tunes the head, the late layers or all layers."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainables.config import NonNegativeFloat, PositiveFloat, PositiveInt
from trainables.dataset import DataInfo
from trainables.schemas.trainable import TrainableSchema
from trainables.training_config import ViewedConfig

# what changes the images, or needs several models
_CHANGING = ("color_jitter", "policy", "erase", "mixup", "cutmix", "ema", "view_size")


class ClassifyConfig(ViewedConfig):
    train: Literal["head", "late", "full"] = Field(
        "full",
        description="what learns: the head; late: also the last quarter of the layers, of a ResNet "
        "its last stage; or all layers",
    )
    head: Literal["linear", "mlp"] = Field(
        "linear", description="the classifier on the features; mlp: the second report's"
    )
    frozen_batchnorm: Literal["eval", "train"] = Field(
        "eval", description="BatchNorm statistics of frozen layers: kept, or from each batch"
    )
    augment: Literal["none", "flip", "crop", "crop_flip", "resized_crop_flip"] = Field(
        "crop_flip", description="random changes of the training images"
    )
    color_jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="strength of random changes of brightness, contrast and saturation, and of a "
        "quarter of it of the hue, after `augment`",
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        "none", description="random operations on each image, such as shear and equalize"
    )
    operations: PositiveInt = Field(2, description="policy `randaugment`: operations per image")
    magnitude: Annotated[int, Field(ge=0, le=30)] = Field(
        9, description="policy `randaugment`: how much an operation changes, 30 is most"
    )
    erase: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="chance that a random rectangle of an image is erased"
    )
    mixup: NonNegativeFloat = Field(
        0.0, description="blend pairs of images by shares from Beta(mixup, mixup); 0: never"
    )
    cutmix: NonNegativeFloat = Field(
        0.0, description="paste rectangles of other images, of shares from Beta(cutmix, cutmix)"
    )
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="decay of a moving average of the weights, such as 0.999: the average is "
        "evaluated and handed on; default: none",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target that is spread over all classes"
    )

    keep_features: bool = Field(
        False,
        description="for `train: head` with `augment: none`: compute the features of the frozen "
        "encoder once, keep them beside the decoded images, and train on them",
    )
    lr_sweep: list[PositiveFloat] = Field(
        [],
        description="with keep_features: train a head with each of these learning rates in one "
        "Run, in place of `lr`; validation chooses among them and the epochs",
    )

    @model_validator(mode="after")
    def _features_can_be_kept(self) -> "ClassifyConfig":
        if self.keep_features and (self.train != "head" or self.augment != "none"):
            raise ValueError(
                "keep_features needs features that do not change: set train to head and augment to "
                "none"
            )
        changing = [name for name in _CHANGING if getattr(self, name) not in (None, 0, "none")]
        if self.keep_features and changing:
            raise ValueError(
                f"keep_features needs features that do not change: remove {', '.join(changing)}"
            )
        if self.lr_sweep and not self.keep_features:
            raise ValueError("lr_sweep trains heads on kept features: set keep_features to true")
        if len(set(self.lr_sweep)) < len(self.lr_sweep):
            raise ValueError(f"lr_sweep lists a learning rate twice: {self.lr_sweep}")
        if self.lr_sweep and self.clip_grad_norm is not None:
            raise ValueError(
                "clip_grad_norm would bound the gradient of all heads of lr_sweep together: remove "
                "one of both"
            )
        return self

    @model_validator(mode="after")
    def _frozen_stays_frozen(self) -> "ClassifyConfig":
        if self.train == "head" and self.frozen_batchnorm == "train":
            raise ValueError(
                "train 'head' with frozen_batchnorm 'train' would change a frozen backbone's "
                "features under the head: set frozen_batchnorm to eval, or train to late"
            )
        if self.train == "head" and (self.backbone_lr_factor, self.layer_lr_decay) != (1.0, 1.0):
            raise ValueError(
                "train 'head' trains no layer of the encoder: remove backbone_lr_factor and "
                "layer_lr_decay, or set train to late or full"
            )
        return self


class ClassifySchema(TrainableSchema):
    """Minimizes the cross-entropy over the classes of the data set."""

    Config = ClassifyConfig
    FIGURES = ("loss", "accuracy")
    SELECT = "val/accuracy"
    PREDICTS = "classes"

    @classmethod
    def check(cls, config: Any, data: DataInfo) -> None:
        super().check(config, data)
        if data.channels != 3 and (config.color_jitter or config.policy != "none"):
            raise ValueError(
                f"color_jitter and policy are for RGB, not for {data.channels} channels: set them "
                "to 0 and none"
            )
