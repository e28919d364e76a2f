"""The optimizers a configuration may name. To add one: write its file, add its name here.

The file of a name defines the function of that name. It is loaded when it is used.
"""

from typing import TYPE_CHECKING

from trainables.on_use import LoadedOnUse

if TYPE_CHECKING:  # it loads torch, and reading a configuration needs the names alone
    from trainables.optimizers.contract import Build

OPTIMIZERS: "LoadedOnUse[Build]" = LoadedOnUse("trainables.optimizers", ("sgd", "adamw", "lars"))
