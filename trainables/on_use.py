"""Finds what modules define by name, and loads a module when it is used: torch takes seconds."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

Item = TypeVar("Item")


class LoadedOnUse(Mapping[str, Item]):
    """Maps each name to what the module of that name in a package defines.

    attribute: what that is called there; default: as the module is. Looking a name up raises
    KeyError for an unknown one, ImportError or AttributeError where its module lacks it.
    """

    def __init__(self, package: str, names: Iterable[str], attribute: str | None = None) -> None:
        self._package, self._names, self._attribute = package, tuple(names), attribute

    def module(self, name: str) -> str:
        """Return the dotted name of the module of a name, which is not loaded. Raises KeyError."""
        if name not in self._names:
            raise KeyError(name)
        return f"{self._package}.{name}"

    def __getitem__(self, name: str) -> Item:
        item: Item = getattr(importlib.import_module(self.module(name)), self._attribute or name)
        return item

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names
