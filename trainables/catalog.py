"""The trainables a study may name. To add one: write its file, add one line here."""

from trainables.classify import Classify
from trainables.rotation import Rotation
from trainables.trainable import Trainable

TRAINABLES: dict[str, type[Trainable]] = {
    "classify": Classify,
    "rotation": Rotation,
}
