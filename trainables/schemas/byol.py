"""Bootstrap Your Own Latent: learns from images without labels (arXiv:2006.07733).

An online network learns to predict the output of a target network for another view of the same
image. The target is a moving average of the online network and has no gradient.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainables.config import PositiveInt
from trainables.dataset import DataInfo
from trainables.metrics import KNN
from trainables.schemas.trainable import TrainableSchema
from trainables.training_config import Backbone, OptimizerName, ScheduleName, ViewedConfig


class ByolConfig(ViewedConfig):
    """The second report's recipe. The paper's: optimizer lars, lr 0.2 * batch_size / 256,
    weight_decay 1.5e-6, schedule cosine with warm-up, views `paper`, target_momentum 0.996,
    momentum_schedule cosine (arXiv:2006.07733, 3.3)."""

    backbone: Backbone = "resnet50"
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    batch_size: Annotated[int, Field(ge=2)] = Field(
        256, description="images per step, over all workers"
    )
    optimizer: OptimizerName = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    schedule: ScheduleName = "constant"
    views: Literal["report", "paper", "simclr"] = Field(
        "report",
        description="augmentations of the two views; report: weak color jitter, as in the second "
        "report (see studies/README.md); paper: that of BYOL's authors; simclr: the strongest",
    )
    min_scale: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.08, description="the smallest share of an image's area that a view shows"
    )
    hidden: PositiveInt = Field(
        4096, description="width of the hidden layer of projector and predictor"
    )
    projection: PositiveInt = Field(256, description="width of the projection")
    target_momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.99, description="share of the target network that each step keeps"
    )
    momentum_schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: rises from target_momentum to 1 over all epochs"
    )
    select: Literal["auto", "knn", "last", "loss"] = Field(
        "auto",
        description="the epoch that later stages take; knn: the best val/knn_accuracy of those "
        "probed; last; loss: the lowest val/loss, as in the second report; auto: knn where images "
        "have classes and are probed, else last; never one that has collapsed",
    )
    probe_every: Annotated[int, Field(ge=0)] = Field(
        5,
        description="epochs between two probes, which measure kNN and linear accuracy; also before "
        "the first epoch, after it and after the last; 0: never",
    )
    on_collapse: Literal["warn", "stop"] = Field(
        "warn",
        description="what happens when all features or projections become the same; a Run without "
        "another epoch to choose fails at its end",
    )

    @model_validator(mode="after")
    def _can_choose(self) -> "ByolConfig":
        if self.select == "knn" and not self.probe_every:
            raise ValueError(
                "select 'knn' chooses among epochs with a probe, and `probe_every: 0` makes none: "
                "set it to 1 or more, or select to last"
            )
        return self


class ByolSchema(TrainableSchema):
    """Learns without labels: those of the data set are used for probes alone."""

    Config = ByolConfig
    FIGURES = ("loss",)
    SELECT = "val/loss"
    PREDICTS = None
    NEEDS = None
    PROBED = True

    @classmethod
    def remark(cls, config: Any, data: DataInfo) -> str:
        if data.channels == 3:
            return ""
        return (
            f"views change brightness and contrast of the {data.channels} channels; saturation, "
            "hue, gray and solarization are for RGB and left out"
        )

    @classmethod
    def select(cls, config: Mapping[str, Any]) -> str:
        return {"knn": KNN, "last": "epoch", "loss": cls.SELECT}[config["select"]]

    @classmethod
    def settled(cls, config: Any, labelled: bool) -> Any:
        if config.select == "knn" and not labelled:
            raise ValueError(
                "select 'knn' asks the classes of validation images, and they have none: set it to "
                "last or auto"
            )
        if config.select == "auto":
            found = "knn" if labelled and config.probe_every else "last"
            config = config.model_copy(update={"select": found})
        return super().settled(config, labelled)
