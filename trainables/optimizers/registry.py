"""The optimizers a configuration may name. To add one: write its file, add one line here."""

from trainables.optimizers.adamw import adamw
from trainables.optimizers.contract import Build
from trainables.optimizers.lars import lars
from trainables.optimizers.sgd import sgd

OPTIMIZERS: dict[str, Build] = {
    "sgd": sgd,
    "adamw": adamw,
    "lars": lars,
}
