"""Rename old keys of a study. They go on working, with one warning that says the new name.

To rename a key of a configuration, add one line to RENAMED_KEYS of trainables/training_config.py;
to rename one of `compare` or of a data set, one line to _COMPARE or _DATA.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.config.yaml_loader import values_at
from trainables.training_config import RENAMED_KEYS

_Table = dict[str, tuple[str, Mapping[Any, Any]]]
_COMPARE: _Table = {"gains": ("differences", {})}
_DATA: _Table = {"on_copies": ("on_duplicates", {"fail": "error"})}
_PARTS = (
    "stages.*.config",
    "stages.*.grid",
    "stages.*.search.space",
)  # hold keys of configurations


def rename_old_keys(mapping: dict[str, Any], override: bool = False) -> list[str]:
    """Rename old keys of a parsed study in place. Returns one warning for each old key.

    override: whether an old key replaces a new one beside it, as a later `--set` must; else both
    stay and the check of the study names the old one. An old value that has no translation stays,
    so that the check names it.
    """
    warnings = []
    tables = ((("compare",), _COMPARE), (("data.*",), _DATA), (_PARTS, RENAMED_KEYS))
    for patterns, table in tables:
        for old, (new, values) in table.items():
            places = [
                place
                for pattern in patterns
                for place, owner, key in _owners(mapping, pattern, old)
                if _rename(owner, key, key.removesuffix(old) + new, values, override)
            ]
            if places:
                warnings.append(_warning(places, old, new, values))
    return warnings


def _owners(
    mapping: dict[str, Any], pattern: str, old: str
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield where an old key stands: dotted place, the mapping that holds the key, the key.

    In the space of a search, the key of another stage begins with its name: `byol.stem`.
    """
    for parent, name in values_at(mapping, pattern):
        owner = parent[name]
        for key in list(owner) if isinstance(owner, dict) else ():
            if key == old or (pattern.endswith(".space") and str(key).endswith(f".{old}")):
                yield pattern, owner, str(key)


def _rename(
    owner: dict[str, Any], old: str, new: str, values: Mapping[Any, Any], override: bool
) -> bool:
    """Rename one key in its place in the order. Returns whether it was renamed."""
    if new in owner and not override:
        return False
    value = _translated(owner[old], values)
    items = [(key, item) for key, item in owner.items() if key != new]
    owner.clear()
    owner.update({new if key == old else key: value if key == old else v for key, v in items})
    return True


def _translated(value: Any, values: Mapping[Any, Any]) -> Any:
    """Translate an old value, a grid's list of them, or the `choice` of a search's space."""
    if isinstance(value, list):
        return [_translated(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _translated(item, values) for key, item in value.items()}
    return values.get(value, value)


def _warning(places: list[str], old: str, new: str, values: Mapping[Any, Any]) -> str:
    where = ", ".join(dict.fromkeys(places))
    examples = [f"`{new}: {str(v).lower()}` for `{old}: {name}`" for name, v in values.items()]
    advice = f": write {', '.join(examples)}" if examples else ""
    return f"{where}: `{old}` is now called `{new}`{advice}"
