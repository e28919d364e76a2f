"""Lets a model carry the own code that it needs: the texts of its modules, in `model.json`.

Whoever predicts with the model needs no file of the user then.
"""

import importlib
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainables.own_code import finder
from trainables.own_code.finder import Source
from trainables.own_code.names import is_own, module_of

_OURS = ("trainables", "orchestrator")
_INIT = "__init__.py"


def carried_sources(names: Iterable[str]) -> dict[str, str]:
    """Return path → text of all modules of own code that names such as `my_module:Net` need: all
    own code that lies beside theirs and is loaded. Paths are relative, such as `my_package/net.py`.
    """
    names = [name for name in names if is_own(name)]
    for name in names:
        importlib.import_module(module_of(name))
    tops = {module_of(name).partition(".")[0] for name in names} - set(_OURS)
    roots = {_root(top) for top in tops} - {None, *_installed_folders()}
    beside = {name.partition(".")[0] for name in sys.modules} - set(_OURS)
    tops |= {top for top in beside if _root(top) in roots}
    used = {n: s for n, s in finder.used().items() if n.partition(".")[0] in tops}
    left = tops - {name.partition(".")[0] for name in used}
    found = finder.sources_in({top: item for top in sorted(left) if (item := _item(top))})
    sources = used | found
    return {_path(name, source): source.text.decode() for name, source in sources.items()}


def use_carried(texts: Mapping[str, str]) -> None:
    """Let this process import the own code that a model carries. texts: of `carried_sources`."""
    if not texts:
        return
    sources = {}
    for path, text in texts.items():
        parts = Path(path).with_suffix("").parts
        package = Path(path).name == _INIT
        dotted = ".".join(parts[:-1] if package else parts)
        folder = f"<model>/{Path(path).parent}" if package else None
        sources[dotted] = Source(f"<model>/{path}", text.encode(), folder)
    finder.use(sources)


def write_carried(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write the own code that a model carries as files. Returns its top-level files and folders."""
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return sorted({folder / Path(path).parts[0] for path in texts})


def _path(name: str, source: Source) -> str:
    path = name.replace(".", "/")
    return f"{path}/{_INIT}" if source.folder is not None else f"{path}.py"


def _item(top: str) -> Path | None:
    """Return the file or folder of a top-level module that is loaded from one."""
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        return None
    path = Path(file)
    return path.parent if path.name == _INIT else path


def _root(top: str) -> Path | None:
    item = _item(top)
    return item.parent.resolve() if item is not None else None


def _installed_folders() -> set[Path]:
    """Return the folders of installed modules and of Python's own: they are no one's own code."""
    names = ("purelib", "platlib", "stdlib", "platstdlib")
    return {Path(sysconfig.get_path(name)).resolve() for name in names}
