"""Classifies images: trains from scratch, or fine-tunes the head, the late layers or all layers."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainables.schemas.trainable import TrainableSchema
from trainables.training_config import TrainableConfig


class ClassifyConfig(TrainableConfig):
    train: Literal["head", "late", "full"] = Field(
        "full", description="what learns: the head, also the last residual stage, or all layers"
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
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the target that is spread over all classes"
    )

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
