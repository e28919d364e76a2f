"""Learns without labels by how many quarter turns an image was rotated (arXiv:1803.07728)."""

from typing import Literal

from pydantic import Field

from trainables.schemas.trainable import TrainableSchema
from trainables.training_config import ViewedConfig


class RotationConfig(ViewedConfig):
    augment: Literal["none", "flip", "crop", "crop_flip"] = Field(
        "none", description="random changes of the training images before they are rotated"
    )
    rotations_per_image: Literal[1, 4] = Field(
        1, description="4: all rotations in each step, as in the paper; 1: a random one"
    )


class RotationSchema(TrainableSchema):
    """Classifies the rotation into four; labels of the data set are not used."""

    Config = RotationConfig
    FIGURES = ("loss", "accuracy")
    SELECT = "val/accuracy"
    PREDICTS = None
    NEEDS = None
