"""The code of the trainables and producers that `trainables/schemas/registry.py` lists: each is the
class that the file of its name gives as TRAINABLE or PRODUCER, loaded when it is used."""

from typing import TYPE_CHECKING

from trainables.on_use import LoadedOnUse
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS

if TYPE_CHECKING:  # these take seconds to load
    from trainables.producer import Producer
    from trainables.trainable import Trainable

TRAINABLES: "LoadedOnUse[type[Trainable]]" = LoadedOnUse(
    "trainables.tasks", TRAINABLE_SCHEMAS, "TRAINABLE"
)
PRODUCERS: "LoadedOnUse[type[Producer]]" = LoadedOnUse(
    "trainables.tasks", PRODUCER_SCHEMAS, "PRODUCER"
)
