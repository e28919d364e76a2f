"""Finds modules of own code for this process: in the files that a study lists, or as the texts that
a model carries.

They are found before anything else of their name, compiled anew whenever they have changed, and
nothing is written beside them: a changed module is never an old one.
"""

import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from pathlib import Path
from types import ModuleType


@dataclass(frozen=True)
class Source:
    """A module of own code. file: where it lies, or would lie; folder: of a package, else None."""

    file: str
    text: bytes
    folder: str | None = None


class _Loader(SourceLoader):
    """Compiles a module from its text."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def get_filename(self, fullname: str) -> str:
        return self.source.file

    def get_data(self, path: str) -> bytes:
        return self.source.text if path == self.source.file else Path(path).read_bytes()


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        source = self.sources.get(fullname)
        if source is None:
            return None
        places = None if source.folder is None else [source.folder]
        return importlib.util.spec_from_file_location(
            fullname, source.file, loader=_Loader(source), submodule_search_locations=places
        )


_FINDER = _Finder()


def sources_in(items: Mapping[str, Path]) -> dict[str, Source]:
    """Return dotted name → module of files and packages. items: top-level name → file, or folder of
    a package. Raises OSError."""
    found: dict[str, Source] = {}
    for name, item in items.items():
        for path in sorted(item.rglob("*.py")) if item.is_dir() else [item]:
            parts = path.relative_to(item).with_suffix("").parts if item.is_dir() else ()
            package = path.name == "__init__.py" and item.is_dir()
            dotted = ".".join([name, *(parts[:-1] if package else parts)])
            folder = str(path.parent) if package else None
            found[dotted] = Source(str(path), path.read_bytes(), folder)
    return found


def use(sources: Mapping[str, Source]) -> None:
    """Let this process import these modules, and no other own code that it has used before. What it
    has loaded of them is forgotten, unless nothing has changed."""
    if dict(sources) == _FINDER.sources:
        return
    tops = {name.partition(".")[0] for name in (*sources, *_FINDER.sources)}
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
    _FINDER.sources = dict(sources)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def used() -> Mapping[str, Source]:
    """Return dotted name → module of the own code that this process uses."""
    return _FINDER.sources


def place_of(error: BaseException) -> str:
    """Return `file:line` of the last line of own code that an exception came through; empty where
    it came through none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    files = {source.file for source in _FINDER.sources.values()}
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename in files]
    return places[-1] if places else ""
