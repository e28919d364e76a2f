"""Defines what a study must know of a trainable: its keys, its metrics, what data it needs.

A plan reads schemas alone. The code that trains lies in `trainables/tasks/`, in a file of the same
name, and is loaded where something is trained.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from trainables.config import as_plain
from trainables.dataset import DataInfo
from trainables.models.encoder_shapes import Shapes, encoder_shapes
from trainables.training_config import TrainableConfig


class TrainableSchema:
    """Holds what a study must know of a trainable. Subclasses set the class attributes."""

    Config: ClassVar[type[TrainableConfig]]
    FIGURES: ClassVar[tuple[str, ...]]  # metrics of each split: `loss` → val/loss, test/loss
    SELECT: ClassVar[str]  # full name of the metric that chooses the checkpoint
    PREDICTS: ClassVar[Literal["classes", "masks"] | None]  # what its model predicts
    NEEDS: ClassVar[Literal["labels", "masks"] | None] = "labels"  # what the data set must have
    PROBED: ClassVar[bool] = False  # whether its features are probed in training

    @classmethod
    def check(cls, config: Any, data: DataInfo) -> None:
        """Check configuration and data before anything starts. Raises ValueError, one line."""
        view = getattr(config, "view_size", None)
        if view is not None and view > data.size:
            raise ValueError(
                f"view_size {view} is more than the {data.size} px of the images: lower it, or "
                "raise the data set's size"
            )

    @classmethod
    def remark(cls, config: Any, data: DataInfo) -> str:
        """Return what a reader of a plan should know, one line; empty for nothing."""
        return ""

    @classmethod
    def select(cls, config: Mapping[str, Any]) -> str:
        """Return the metric that chooses the checkpoint, where the configuration decides it;
        `epoch` chooses the last one."""
        return cls.SELECT

    @classmethod
    def settled(cls, config: Any, labelled: bool) -> Any:
        """Return the configuration without what is left to the data: here the metric of early
        stopping, which by default is the one that chooses the checkpoint. Settled twice it is the
        same.

        config: of this trainable; labelled: whether each image has a class. Raises ValueError, one
        line, where they do not fit.
        """
        stop = config.early_stopping
        if stop is None or stop.metric is not None:
            return config
        metric = cls.select(as_plain(config))
        stop = stop.model_copy(update={"metric": "val/loss" if metric == "epoch" else metric})
        return config.model_copy(update={"early_stopping": stop})

    @classmethod
    def encoder_shapes(cls, config: Any, data: DataInfo) -> Shapes:
        """Return the tensors of its encoder, in their order: name → shape."""
        side = config.seen(data.size)
        return encoder_shapes(config.backbone, config.small_input, data.channels, side)
