"""Checks that a training which was interrupted ends with the same bits."""

from trainables.checking.faults import doing, require
from trainables.checking.steps import differing
from trainables.engine.checkpoints import InMemory
from trainables.engine.loop import Options, Training, train
from trainables.loading.image_table import ImageTable
from trainables.trainable import Trainable
from trainables.training_config import TrainableConfig


def check_resume(kind: type[Trainable], config: TrainableConfig, table: ImageTable) -> str:
    """Two epochs in one go, and one epoch, a new process's start, and the other: equal weights."""
    with doing("training"):
        whole = Training(kind, config, table, InMemory(), Options())
        train(whole, lambda figures: None)
        kept = InMemory()
        train(Training(kind, config, table, kept, Options()), lambda figures: None, until=1)
        again = Training(kind, config, table, kept, Options())
        train(again, lambda figures: None)
    names = differing(again.trainable.model, whole.trainable.model.state_dict())
    require(
        not names,
        f"a training that goes on after its first epoch ends with other weights ({names[:1]}): "
        "state that matters must be in self.model (register_buffer), and draws must come from "
        "batch.uniform(n)",
    )
    with doing("the test"):
        whole.finish()
    return f"a resume after epoch 1 of {config.epochs}: {_tensors(again)} tensors, bit for bit"


def _tensors(training: Training) -> int:
    return len(training.trainable.model.state_dict())
