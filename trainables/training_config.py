"""Configuration of a training: what every trainable understands."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from trainables.backbones import BACKBONES, check_backbone, check_settings
from trainables.config import Config, NonNegativeFloat, PositiveFloat, PositiveInt
from trainables.optimizers.registry import OPTIMIZERS
from trainables.schedules.registry import SCHEDULES

if TYPE_CHECKING:  # the registries say which names there are
    OptimizerName = str
    ScheduleName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]
    ScheduleName = Literal[tuple(SCHEDULES)]

Backbone = Annotated[
    str,
    AfterValidator(check_backbone),
    WithJsonSchema({"type": "string", "enum": [*BACKBONES, "timm:NAME", "module:build"]}),
]


# Old key → its present name, and old value → present value. Study files may still hold old keys,
# and so do configurations that were stored with a model.
RENAMED_KEYS: dict[str, tuple[str, Mapping[Any, Any]]] = {
    "stem": ("small_input", {"small": True, "imagenet": False}),
}


def with_present_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored configuration with present keys and values in place of old ones."""
    present = dict(config)
    for old, (new, values) in RENAMED_KEYS.items():
        if old in present and new not in present:
            value = present.pop(old)
            present[new] = values.get(value, value)
    return present


class EarlyStopping(Config):
    """Stop when `metric` has not improved for `patience` epochs (counted from the best one)."""

    metric: str | None = Field(
        None,
        description="the metric that must improve; default: the one that chooses the epoch "
        "(val/loss where that is the last)",
    )
    patience: PositiveInt = Field(10, description="epochs without improvement before the stop")


class CheckpointEvery(Config):
    """Write a checkpoint every so many epochs, or minutes: one of the two."""

    epochs: PositiveInt | None = Field(None, description="number of epochs from one to the next")
    minutes: PositiveFloat | None = Field(
        None, description="at the end of the first epoch after so many minutes"
    )

    @model_validator(mode="after")
    def _says_one(self) -> "CheckpointEvery":
        if (self.epochs is None) == (self.minutes is None):
            raise ValueError("give one of epochs and minutes, such as `{minutes: 10}`")
        return self


class Change(Config):
    """Values that hold from the beginning of an epoch on, until the next change."""

    epoch: Annotated[int, Field(ge=2)] = Field(
        description="the first epoch with the new values, counted from 1"
    )
    lr: PositiveFloat | None = Field(None, description="learning rate; default: unchanged")
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="of SGD and LARS; default: unchanged"
    )
    weight_decay: NonNegativeFloat | None = Field(
        None, description="of the optimizer; default: unchanged"
    )
    batch_size: Annotated[int, Field(ge=2)] | None = Field(
        None, description="images per step, over all workers; default: unchanged"
    )

    @property
    def values(self) -> dict[str, float | int]:
        return self.model_dump(exclude_none=True, exclude={"epoch"})


# what may be another from some epoch on: neither the model nor its optimizer has another form then
CHANGEABLE = tuple(name for name in Change.model_fields if name != "epoch")


class TrainableConfig(Config):
    """Holds the keys that every trainable understands. Batch sizes are global: shared out over the
    workers."""

    dataset: str = Field(description="the data set to learn from: a name under `data:`")
    backbone: Backbone = Field(
        "resnet18", description="the network whose features are learned; resnet10_slim: for tests"
    )
    small_input: bool = Field(
        False, description="for images of 32 px or less: start with a 3x3 convolution, no pooling"
    )
    weights: str = Field(
        "random",
        description="initial weights: `random`, `imagenet` (torchvision's), or a state-dict file; "
        "a stage with `after:` starts from its parent instead",
    )
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        20, description="how often training passes over the training images"
    )
    batch_size: Annotated[int, Field(ge=2)] = Field(
        128, description="images per step, over all workers"
    )
    accumulate: PositiveInt = Field(
        1, description="parts of a batch that pass one after the other, to save memory"
    )
    optimizer: OptimizerName = Field("sgd", description="how gradients change the weights")
    lr: PositiveFloat = Field(0.05, description="learning rate after the warm-up")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="of SGD and LARS")
    weight_decay: NonNegativeFloat = Field(5e-4, description="of the optimizer")
    decayed: Literal["weights", "all"] = Field(
        "weights",
        description="what weight_decay shrinks; weights: neither biases nor the parameters of "
        "normalization; all: these too, as in the reports (not with lars)",
    )
    backbone_lr_factor: PositiveFloat = Field(
        1.0, description="learning rate of the encoder, as a factor of `lr`, which the head has"
    )
    layer_lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="factor of the learning rate for each layer of the encoder away from the head; "
        "a ResNet and a ConvNeXt have five: the first convolution and four stages; an EfficientNet "
        "has its convolutions and stages, a ViT its patches and blocks",
    )
    schedule: ScheduleName = Field("cosine", description="how the learning rate falls")
    step_epochs: PositiveInt = Field(15, description="schedule `step`: epochs between two drops")
    step_gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        0.1, description="schedule `step`: factor of the learning rate at each drop"
    )
    warmup_epochs: NonNegativeFloat = Field(
        0.0, description="epochs in which the learning rate rises from 0, such as 0.5"
    )
    clip_grad_norm: PositiveFloat | None = Field(
        None, description="upper limit of the gradient's norm; default: none"
    )
    changes: list[Change] = Field(
        [], description="other values from an epoch on: `[{epoch: 11, lr: 0.01}]`"
    )
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "auto",
        description="number format of the network; auto: bfloat16 where it is faster; tf32: "
        "float32 whose products a GPU rounds to 10 bits; float16: with scaled losses, for GPUs "
        "before compute capability 8.0",
    )
    early_stopping: EarlyStopping | None = Field(
        None, description="stop when a metric no longer improves; default: never"
    )
    tsne_epochs: list[PositiveInt] = Field(
        [], description="epochs with a t-SNE plot, besides the first and the last"
    )

    checkpoint_every: CheckpointEvery | None = Field(
        None,
        description="how often a checkpoint is written, from which a killed Run goes on; default: "
        "after every epoch that is long enough for it to cost less than 2 % of the time",
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
        check_settings(self.backbone, self.small_input, self.weights)
        if self.small_input and self.weights == "imagenet":
            raise ValueError(
                "weights 'imagenet' need `small_input: false`: torchvision's first convolution "
                "is 7x7"
            )
        if self.optimizer == "lars" and self.decayed == "all":
            raise ValueError(
                "optimizer 'lars' never decays biases and normalization: remove `decayed: all`, or "
                "take another optimizer"
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

    def seen(self, size: int) -> int:
        """Return the side in px of what the network sees of images with a side of `size` px."""
        return size

    def at(self, epoch: int) -> Self:
        """Return what holds in an epoch, counted from 1."""
        values: dict[str, float | int] = {}
        for change in self.changes:
            if change.epoch <= epoch:
                values |= change.values
        return self.model_copy(update=values) if values else self

    def learning_rate(self, progress: float) -> float:
        """Return learning rate at `progress` epochs (a real number in [0, epochs])."""
        if progress < self.warmup_epochs:
            return self.lr * (progress + 1e-3) / (self.warmup_epochs + 1e-3)
        return self.lr * SCHEDULES[self.schedule](progress, self)


class ViewedConfig(TrainableConfig):
    """Holds the keys of trainables that may see a part of each image only."""

    view_size: Annotated[int, Field(ge=4, le=8192)] | None = Field(
        None,
        description="side in px of what it learns from, cut out of the larger images of the data "
        "set; evaluation takes the center. Default: the image's side",
    )

    def seen(self, size: int) -> int:
        return self.view_size or size


def check_batch(images: int, workers: int, accumulate: int) -> None:
    """Raise ValueError if a batch of so many images is too small for its workers.

    Every worker needs an image in each of its `accumulate` passes; a single process needs two,
    since BatchNorm does.
    """
    least = 2 * accumulate if workers == 1 else workers * accumulate
    if images < least:
        cure = "or lower workers or accumulate" if least > 2 else "BatchNorm needs two"
        raise ValueError(
            f"a batch has {images} of the training images, and workers {workers}, accumulate "
            f"{accumulate} need at least {least}: give it more, {cure}"
        )
