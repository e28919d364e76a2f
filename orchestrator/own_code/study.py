"""Settle the own code of a study: find it, let this process import it, and check it.

A study that names own code runs it here: `module:Name` of a trainable or data set is imported by
whoever plans. Nothing of it is run where a study names none.
"""

import contextlib
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.own_code import entry_points, imports
from orchestrator.own_code.items import OwnCodeError, installed_item, item_of
from trainables.backbones import BACKBONES
from trainables.data.datasets import DATASETS
from trainables.data.named_datasets import as_dataset_type
from trainables.own_code import contract, finder
from trainables.own_code.names import is_own, load, module_of
from trainables.schemas.registry import TRAINABLE_SCHEMAS

Add = Callable[[str, str], object]  # notes an error: dotted key, message
_OURS = ("orchestrator", "trainables")
_BACKBONES = (*BACKBONES, "vgg16")


@dataclass(frozen=True)
class _Use:
    """A place of a study that names own code. key: dotted; check: what it names → what is wrong."""

    key: str
    name: str
    check: Callable[[Any, str], list[str]]


def settle(mapping: dict[str, Any], add: Add) -> bool:
    """Resolve the own code of a parsed study in place, and let this process import it.

    Names of entry points become `module:Name`, and packages of installed ones are added to `code`,
    so that they travel too. Returns whether all can be used; else `add` was called.
    """
    listed = mapping.get("code") or []
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        return True  # the form of the study says so
    uses = list(_uses(mapping))
    if not listed and not uses:
        finder.use({})
        return True
    faults: list[tuple[str, str]] = []
    items = _items(listed, faults)
    for use in uses:
        _add_installed(use, items, faults)
    if listed or items:
        mapping["code"] = list(map(str, items.values()))
    if not faults:
        finder.use(finder.sources_in(items))
        for use in uses:
            faults += [(use.key, line) for line in faults_of(use.name, use.check)]
    for key, line in dict.fromkeys(faults):
        add(key, line)
    return not faults


def faults_of(name: str, check: Callable[[Any, str], list[str]]) -> list[str]:
    """Return what is wrong with `module:Name`, a line each. Runs its module."""
    module = module_of(name)
    own = finder.used()
    try:
        if lines := imports.left_behind(imports.reached(module, own), own):
            return lines
        with contextlib.redirect_stdout(sys.stderr):  # a command's output may be JSON
            value = load(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [_why(error, name)]
    return check(value, name)


def as_trainable(value: Any, name: str) -> list[str]:
    """Return what is wrong with an own trainable."""
    return contract.faults(value, name)


def as_dataset(value: Any, name: str) -> list[str]:
    """Return what is wrong with an own data set type."""
    try:
        as_dataset_type(value, name)
    except TypeError as error:
        return [str(error)]
    return []


def as_backbone(value: Any, name: str) -> list[str]:
    """Return what is wrong with an own backbone."""
    if callable(value):
        return []
    return [f"{name} is a {type(value).__name__}, and must be a function from channels to a net"]


def _uses(mapping: Mapping[str, Any]) -> Iterator[_Use]:
    """Yield the places that name own code; entry points are replaced by what they stand for."""
    for name, stage in _entries(mapping.get("stages")):
        if isinstance(stage, dict) and _settled(
            stage, "trainable", TRAINABLE_SCHEMAS, entry_points.TRAINABLES
        ):
            yield _Use(f"stages.{name}.trainable", stage["trainable"], as_trainable)
        yield from _backbones(name, stage)
    data: Any = mapping.get("data")
    for name, entry in _entries(data):
        owner, key = (entry, "type") if isinstance(entry, dict) else (data, name)
        if _settled(owner, key, DATASETS, entry_points.DATASETS):
            yield _Use(f"data.{name}.type", owner[key], as_dataset)


def _backbones(name: str, stage: Any) -> Iterator[_Use]:
    """Yield the backbones of own code of a stage: of its configuration, and of its grid."""
    for part in ("config", "grid"):
        values = stage.get(part) if isinstance(stage, dict) else None
        found = values.get("backbone") if isinstance(values, dict) else None
        owner: Any = found if isinstance(found, list) else values
        keys: list[Any] = [*range(len(found))] if isinstance(found, list) else ["backbone"]
        for key in keys if found else ():
            if isinstance(owner, dict | list) and _settled(
                owner, key, _BACKBONES, entry_points.BACKBONES
            ):
                yield _Use(f"stages.{name}.{part}.backbone", owner[key], as_backbone)


def _settled(owner: Any, key: Any, known: Container[str], group: str) -> bool:
    """Return whether a value is own code, after an entry point has become `module:Name`."""
    value = owner.get(key) if isinstance(owner, dict) else owner[key]
    if not isinstance(value, str):
        return False
    if not is_own(value) and value not in known:
        owner[key] = entry_points.target_of(group, value) or value
    return is_own(owner[key])


def _entries(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _items(listed: list[str], faults: list[tuple[str, str]]) -> dict[str, Path]:
    items: dict[str, Path] = {}
    for index, path in enumerate(listed):
        try:
            name, found = item_of(Path(path))
        except OwnCodeError as error:
            faults.append((f"code[{index}]", str(error)))
            continue
        if name in items and items[name] != found:
            faults.append((f"code[{index}]", f"{items[name]} has the same name: rename one"))
        items[name] = found
    return items


def _add_installed(use: _Use, items: dict[str, Path], faults: list[tuple[str, str]]) -> None:
    """Add the package of an own name that is installed, not listed."""
    top, _, attribute = use.name.partition(":")
    top = top.partition(".")[0]
    if not top.isidentifier() or not attribute.replace(".", "").isidentifier():
        faults.append((use.key, f"{use.name!r} is no name of own code: write module:Name"))
        return
    if top in items or top in _OURS:
        return
    installed = installed_item(top)
    if installed is None:
        line = f"{top} is neither listed in `code` nor installed: add `code: [{top}.py]`"
        faults.append((use.key, line))
        return
    items[top] = installed


def _why(error: BaseException, name: str) -> str:
    """Say in a line why a module cannot be loaded, with the place in the user's own file."""
    module, _, attribute = name.partition(":")
    text, place = f"{type(error).__name__}: {error}", finder.place_of(error)
    if isinstance(error, ModuleNotFoundError):
        if not place:
            return f"there is no module {error.name}: correct {name!r}, or `code`"
        return f"{place}: {text}: install {error.name}, or add it to `code`"
    if isinstance(error, SyntaxError):
        text = f"{type(error).__name__}: {error.msg}"
    if place:
        return f"{place}: {text}: correct it"
    if isinstance(error, AttributeError):
        return f"{module} defines no {attribute}: correct the name, or define it there"
    return f"{module} cannot be imported ({text}): correct it"
