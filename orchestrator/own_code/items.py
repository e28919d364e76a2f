"""Find the modules and packages that the study key `code` lists, and refuse what cannot be one.

An *item* is a top-level module: a file `my_module.py`, or a folder `my_package` with `__init__.py`.
"""

import importlib.machinery
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_OURS = ("orchestrator", "trainables")
_MOST_BYTES = 50_000_000  # of an item: it travels with each job
_HIDDEN = ("__pycache__", ".*")  # patterns of files that do not travel


class OwnCodeError(ValueError):
    """Own code cannot be used; one line that says what to do."""


def item_of(path: Path) -> tuple[str, Path]:
    """Return the name and the path of the item that a line of `code` names. Raises OwnCodeError."""
    name = _name_of(path)
    if not name.isidentifier():
        raise OwnCodeError(f"{path} cannot be imported as {name!r}: rename it to letters and '_'")
    if name in _OURS:
        raise OwnCodeError(f"{path} has the name of a package of this product: rename it")
    # a relative path is that of code that has travelled with a job, and was checked before
    if path.is_absolute() and (installed := _installed(name, path)):
        raise OwnCodeError(f"{path} has the name of the installed module {installed}: rename it")
    if (size := _bytes(path)) > _MOST_BYTES:
        raise OwnCodeError(
            f"{path} has {size / 1e6:.0f} MB, and at most {_MOST_BYTES / 1e6:.0f} MB travel with a "
            "job: keep data and weights elsewhere"
        )
    return name, path


def _name_of(path: Path) -> str:
    """Return the name of the module that lies at a path. Raises OwnCodeError."""
    if not path.exists():
        raise OwnCodeError(f"there is no file or folder {path}: correct the path, or remove it")
    if path.is_dir():
        if not (path / "__init__.py").is_file():
            raise OwnCodeError(
                f"{path} is no package: add an empty __init__.py to it, or list its .py files"
            )
        return path.resolve().name
    if path.suffix != ".py":
        raise OwnCodeError(f"{path} is no Python file: list .py files and folders of packages")
    return path.stem


def installed_item(name: str) -> Path | None:
    """Return the file or package of a top-level module that is installed, not beside a study; None
    where there is none, or none that could travel."""
    spec = _spec(name, _import_folders())
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    return path.parent if path.name == "__init__.py" else path


def ship(items: Mapping[str, Path], folder: Path) -> list[str]:
    """Copy items into the folder of a job. Returns what `code` names them there."""
    for item in items.values():
        target = folder / item.name
        if item.is_dir():
            shutil.copytree(item, target, ignore=shutil.ignore_patterns(*_HIDDEN))
        else:
            shutil.copyfile(item, target)
    return [item.name for item in items.values()]


def items_of(mapping: Mapping[str, Any]) -> dict[str, Path]:
    """Return the items of a study that is settled: name → file or folder. Raises OwnCodeError."""
    return dict(item_of(Path(path)) for path in mapping.get("code") or ())


def _installed(name: str, path: Path) -> str:
    """Return the file of another module of this name that Python would import, empty for none."""
    if name in sys.stdlib_module_names or name in sys.builtin_module_names:
        return f"{name} of Python"
    spec = _spec(name, _import_folders())
    found = (spec.origin or "without a file") if spec else ""
    return found if found and path.resolve() not in (Path(found), Path(found).parent) else ""


def _import_folders() -> list[str]:
    """Return where Python finds modules, without the working folder."""
    here = os.getcwd()
    return [folder for folder in sys.path if folder and os.path.realpath(folder) != here]


def _spec(name: str, folders: Iterable[str]) -> importlib.machinery.ModuleSpec | None:
    spec = importlib.machinery.PathFinder.find_spec(name, list(folders))
    return spec if spec is not None and spec.loader is not None else None  # else a mere folder


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
