"""The code of the trainables and producers that `trainables/schemas/registry.py` lists: each is the
class that the file of its name gives as TRAINABLE or PRODUCER, loaded when it is used. Own code is
looked up as `module:Name`."""

from typing import TYPE_CHECKING

from trainables.on_use import LoadedOnUse
from trainables.own_code.names import WithOwn
from trainables.schemas.registry import PRODUCER_SCHEMAS, TRAINABLE_SCHEMAS, with_own_metrics

if TYPE_CHECKING:  # these take seconds to load
    from trainables.producer import Producer
    from trainables.trainable import Trainable

BUILT_IN: "LoadedOnUse[type[Trainable]]" = LoadedOnUse(
    "trainables.tasks", TRAINABLE_SCHEMAS, "TRAINABLE"
)
TRAINABLES: "WithOwn[type[Trainable]]" = WithOwn(BUILT_IN, with_own_metrics)
PRODUCERS: "LoadedOnUse[type[Producer]]" = LoadedOnUse(
    "trainables.tasks", PRODUCER_SCHEMAS, "PRODUCER"
)
