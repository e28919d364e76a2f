"""Turns `module:Name` into what the module defines, beside the names of a registry."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from trainables.networks.timm_names import is_timm

Item = TypeVar("Item")


def is_own(name: str) -> bool:
    """Return whether a name is of own code, such as `my_module:MyTrainable`; `timm:NAME` is not."""
    return ":" in name and not is_timm(name)


def module_of(name: str) -> str:
    """Return the dotted name of the module of `module:Name`."""
    return name.partition(":")[0]


def load(name: str) -> Any:
    """Import `module:Name` and return what it names. Raises what the import raises, AttributeError
    where the module defines no such name."""
    module, _, attribute = name.partition(":")
    value: Any = importlib.import_module(module)
    for part in attribute.split("."):
        value = getattr(value, part)
    return value


class WithOwn(Mapping[str, Item]):
    """Maps the names of a registry, and `module:Name` to what that module defines.

    Iteration gives the names of the registry alone. `in` is true for own code once its module is
    loaded; looking it up loads it, and raises what its import raises.
    """

    def __init__(self, known: Mapping[str, Item], accept: Callable[[Any, str], Item]) -> None:
        """accept: what a module defines, and its name → an item; raises TypeError."""
        self._known, self._accept = known, accept

    def __getitem__(self, name: str) -> Item:
        return self._accept(load(name), name) if is_own(name) else self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and is_own(name):
            return module_of(name) in sys.modules
        return name in self._known
