"""Read from its text what a module of own code imports. Nothing is executed."""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainables.own_code.finder import Source

_OURS = ("orchestrator", "trainables")


@dataclass(frozen=True)
class Import:
    """A name that a module imports. local: what it is called there; module: where it comes from, in
    full; name: what it is called there, empty for the module itself; line: from 1."""

    local: str
    module: str
    name: str
    line: int


def imports_of(module: str, source: Source, own: Mapping[str, Source]) -> list[Import]:
    """Return what a module imports anywhere, but for type checkers. own: dotted name → module."""
    found = []
    for node in _running(ast.parse(source.text, source.file)):
        if isinstance(node, ast.Import):
            for item in node.names:
                local = item.asname or item.name.partition(".")[0]
                found.append(Import(local, item.name, "", node.lineno))
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, module, source.folder is not None)
            for item in node.names:
                inner, local = f"{origin}.{item.name}", item.asname or item.name
                is_module = inner in own
                name = "" if is_module else item.name
                found.append(Import(local, inner if is_module else origin, name, node.lineno))
    return found


def reached(module: str, own: Mapping[str, Source]) -> dict[str, list[Import]]:
    """Return each module of own code that is run where `module` is imported → what it imports."""
    found: dict[str, list[Import]] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        for part in _with_packages(name):
            if part in own and part not in found:
                found[part] = imports_of(part, own[part], own)
                todo += [item.module for item in found[part]]
    return found


def left_behind(found: Mapping[str, list[Import]], own: Mapping[str, Source]) -> list[str]:
    """Return a line for each import of a module that lies beside own code and does not travel."""
    tops = {name.partition(".")[0] for name in own}
    lines = []
    for module, items in found.items():
        top = own[module.partition(".")[0]]
        folder = (Path(top.folder) if top.folder else Path(top.file)).parent
        for item in items:
            name = item.module.partition(".")[0]
            if name in tops or name in _OURS or name in sys.stdlib_module_names:
                continue
            for beside in (folder / f"{name}.py", folder / name / "__init__.py"):
                if beside.is_file():
                    what = beside.name if beside.stem == name else f"{name}/"
                    lines.append(
                        f"{own[module].file}:{item.line} imports {name}, which lies beside it and "
                        f"is not in `code:`: add {what} to `code`"
                    )
    return list(dict.fromkeys(lines))


def _with_packages(name: str) -> list[str]:
    """Return a module and the packages that it lies in: Python runs them first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _absolute(node: ast.ImportFrom, module: str, package: bool) -> str:
    """Return the full name of the module that a `from` statement names."""
    if not node.level:
        return str(node.module)
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + (1 if package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, without what is for type checkers alone."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and is_for_type_checkers(child.test):
            for other in child.orelse:
                yield other
                yield from _running(other)
            continue
        yield child
        yield from _running(child)


def is_for_type_checkers(test: ast.expr) -> bool:
    """Return whether a condition is that of type checkers alone."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"
