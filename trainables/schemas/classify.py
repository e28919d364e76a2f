"""Classifies images: trains from scratch, or fine-tunes the head, the late layers or all layers."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainables.config import PositiveFloat
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
