"""Configuration of a training: what every trainable understands."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from trainables.config import Config, NonNegativeFloat, PositiveFloat, PositiveInt
from trainables.optimizers.registry import OPTIMIZERS
from trainables.schedules.registry import SCHEDULES

if TYPE_CHECKING:  # the registries say which names there are
    OptimizerName = str
    ScheduleName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
    ScheduleName = Literal[tuple(SCHEDULES)]

Backbone = Literal["resnet18", "resnet50", "resnet10_slim"]


class EarlyStopping(Config):
    """Stop when `metric` has not improved for `patience` epochs (counted from the best one)."""

    metric: str = "val/loss"
    patience: PositiveInt = 10


class Change(Config):
    """Values that hold from the beginning of an epoch on, until the next change."""

    epoch: Annotated[int, Field(ge=2)]
    lr: PositiveFloat | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: NonNegativeFloat | None = None
    batch_size: Annotated[int, Field(ge=2)] | None = None

    @property
    def values(self) -> dict[str, float | int]:
        return self.model_dump(exclude_none=True, exclude={"epoch"})


# what may be another from some epoch on: neither the model nor its optimizer has another form then
CHANGEABLE = tuple(name for name in Change.model_fields if name != "epoch")


class TrainableConfig(Config):
    """What every trainable understands. Batch sizes are global: shared out over the workers."""

    dataset: str = Field(description="a name under the study's `data:`")
    backbone: Backbone = "resnet18"
    stem: Literal["imagenet", "small"] = Field(
        "imagenet", description="`small`: 3x3 convolution, stride 1, no pooling, for small images"
    )
    weights: str = Field(
        "random",
        description="`random`, `imagenet` (torchvision's), or a state-dict file; "
        "a stage with `after:` starts from its parent instead",
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    batch_size: Annotated[int, Field(ge=2)] = Field(128, description="global, over all workers")
    accumulate: PositiveInt = Field(
        1, description="parts of a batch that pass one after the other, where memory is short"
    )
    optimizer: OptimizerName = "sgd"
    lr: PositiveFloat = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="SGD and LARS")
    weight_decay: NonNegativeFloat = 5e-4
    schedule: ScheduleName = "cosine"
    step_epochs: PositiveInt = Field(15, description="schedule `step`: epochs between two drops")
    step_gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: NonNegativeFloat = 0.0
    clip_grad_norm: PositiveFloat | None = None
    changes: list[Change] = Field(
        [], description="other values from an epoch on: `[{epoch: 11, lr: 0.01}]`"
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    early_stopping: EarlyStopping | None = None
    tsne_epochs: list[PositiveInt] = Field(
        [], description="epochs with a t-SNE picture, beside the first and the last"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainableConfig":
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs:g} but epochs is {self.epochs}: "
                "warm-up must end before training does"
            )
        if self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} leaves less than 2 of {self.batch_size} images at "
                "once, and BatchNorm needs 2: raise batch_size or lower accumulate"
            )
        if self.weights == "imagenet" and self.backbone == "resnet10_slim":
            raise ValueError("weights 'imagenet': there are none for resnet10_slim")
        if self.stem == "small" and self.weights == "imagenet":
            raise ValueError(
                "weights 'imagenet' need stem 'imagenet': torchvision's first convolution is 7x7"
            )
        self._check_changes()
        return self

    def _check_changes(self) -> None:
        epochs = [change.epoch for change in self.changes]
        if epochs != sorted(set(epochs)):
            raise ValueError(f"changes: the epochs must rise, not {epochs}")
        if epochs and epochs[-1] > self.epochs:
            raise ValueError(f"changes: epoch {epochs[-1]} comes after the last one, {self.epochs}")
        for change in self.changes:
            if not change.values:
                raise ValueError(f"changes: at epoch {change.epoch} nothing changes")
            if (change.batch_size or self.batch_size) < 2 * self.accumulate:
                raise ValueError(
                    f"changes: batch_size {change.batch_size} cannot be passed in "
                    f"{self.accumulate} parts (accumulate) of 2 images at least"
                )

    def at(self, epoch: int) -> Self:
        """What holds in an epoch, counted from 1."""
        values: dict[str, float | int] = {}
        for change in self.changes:
            if change.epoch <= epoch:
                values |= change.values
        return self.model_copy(update=values) if values else self

    def learning_rate(self, progress: float) -> float:
        """Learning rate at `progress` epochs (a real number in [0, epochs])."""
        if progress < self.warmup_epochs:
            return self.lr * (progress + 1e-3) / (self.warmup_epochs + 1e-3)
        return self.lr * SCHEDULES[self.schedule](progress, self)
