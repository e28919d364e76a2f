"""Versions of code: what decides the figures of a Run, and which tree a command runs.

A Run's code version is a hash over every module of this project that its training reaches by its
imports, without those that only show or ship what was trained. Docstrings, comments, layout,
import lines and the names of modules do not count: moving or renaming a file trains nothing again.
"""

import ast
import functools
import hashlib
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orchestrator
import trainables

PACKAGES = (
    Path(orchestrator.__file__).resolve().parent,
    Path(trainables.__file__).resolve().parent,
)
TRAINING = "orchestrator.execution.worker"  # what every trainable is trained by
BATCH_INFERENCE = "orchestrator.execution.batch_worker"  # what every producer is run by

# Modules that only show or ship what was trained, or that name choices of which a Run uses one.
# They are not hashed, and neither is what only they import. Anything else that is reached counts.
NOT_COUNTED = frozenset(
    {
        "orchestrator.storage.artifacts",
        "orchestrator.storage.checkpoints",
        "orchestrator.storage.files",
        "orchestrator.storage.manifest",
        "orchestrator.storage.run_log",
        "orchestrator.storage.run_records",
        "orchestrator.storage.tensors",
        "trainables.metrics",
        "trainables.monitoring.recorder",
        "trainables.optimizers.registry",
        "trainables.schedules.registry",
        "trainables.tasks.predictor",
        "trainables.tasks.registry",
    }
)


class CodeNotFound(Exception):
    """A module or name of this project is imported and does not exist; one line."""


@functools.cache
def code_version(*modules: str, choice: str = "") -> str:
    """16 hexadecimal digits over the code of modules and of all that they reach.

    modules: dotted names, such as `trainables.tasks.rotation`; choice: what a registry that does
    not count says of the Run. Raises CodeNotFound.
    """
    texts = [*sorted(_digest(name) for name in reached(*modules)), choice]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@functools.cache
def reached(*modules: str) -> frozenset[str]:
    """Modules of this project that count: the given ones, and what they import, in turn."""
    if missing := NOT_COUNTED - known_modules().keys():
        raise CodeNotFound(f"NOT_COUNTED names {sorted(missing)[0]}, which does not exist")
    found: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in found and (name in modules or name not in NOT_COUNTED):
            found.add(name)
            todo += [origin for origin, _ in _imported(name).values() if origin in known_modules()]
    return frozenset(found)


@functools.cache
def tree_version() -> str:
    """16 hexadecimal digits over every file of both packages: driver and workers must agree."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted([*package.rglob("*.py"), *package.rglob("*.yaml")]):
            digest.update(f"{path.relative_to(package.parent)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def git_commit() -> str | None:
    """The commit of the checkout that runs; None outside of one."""
    command = ["git", "-C", str(PACKAGES[0].parent), "rev-parse", "HEAD"]
    if not (PACKAGES[0].parent / ".git").exists():
        return None
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


@functools.cache
def known_modules() -> dict[str, Path]:
    """Dotted name → file, of every module and package of this project."""
    found = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@functools.cache
def _tree(module: str) -> ast.Module:
    if module not in known_modules():
        raise CodeNotFound(f"there is no module {module}: the code version would not see it change")
    return ast.parse(known_modules()[module].read_bytes())


@functools.cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """Name in a module → the module that it comes from, and its name there; no name where it is
    that module itself. Imports that serve type checkers alone are left out."""
    found: dict[str, tuple[str, str]] = {}
    for node in _runtime_nodes(_tree(module)):
        if isinstance(node, ast.Import):
            for item in node.names:
                origin = item.name if item.asname else item.name.partition(".")[0]
                found[item.asname or origin] = (_checked(item.name, module, origin), "")
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                found[item.asname or item.name] = _origin(node, item.name, module)
    return found


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and _is_for_type_checkers(child.test):
            for other in child.orelse:
                yield from _runtime_nodes(other)
            continue
        yield child
        yield from _runtime_nodes(child)


def _is_for_type_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _origin(node: ast.ImportFrom, name: str, module: str) -> tuple[str, str]:
    if node.level:
        raise CodeNotFound(f"{module} has a relative import: write it in full")
    source = str(node.module)
    if not _is_ours(source):
        return source, name
    if f"{source}.{name}" in known_modules():
        return f"{source}.{name}", ""
    if name not in _defined(source):
        raise CodeNotFound(f"{module} imports {name} from {source}, which does not define it")
    return source, name


def _checked(name: str, module: str, origin: str) -> str:
    if _is_ours(name) and name not in known_modules():
        raise CodeNotFound(f"{module} imports {name}, which does not exist")
    return origin


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in {package.name for package in PACKAGES}


@functools.cache
def _defined(module: str) -> set[str]:
    """Names that a module defines or imports."""
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {item.asname or item.name for item in node.names}
    return found


def _text(module: str) -> str:
    """The code of a module as text that is the same on every Python: what an import has brought in
    stands as what it is, not as where it lies."""
    origins = {name: _named(*origin) for name, origin in _imported(module).items()}
    return _written(_tree(module), origins)


def _named(origin: str, name: str) -> str:
    """An imported thing: of this project by the code that defines it, else by its full name."""
    if not _is_ours(origin):
        return f"{origin}:{name}"
    if origin in NOT_COUNTED:
        return f"ours:{name}"
    return f"ours:{_digest(origin)}:{name}"


@functools.cache
def _digest(module: str) -> str:
    """Of a module's code and of what it imports: no module imports one that imports it."""
    return hashlib.sha256(_text(module).encode()).hexdigest()


def _written(node: Any, origins: dict[str, str]) -> str:
    """A syntax tree as text. `ast.dump` differs between versions of Python: newer ones leave empty
    fields out, have fields that older ones lack, and cut f-strings into other pieces."""
    if isinstance(node, ast.Name) and node.id in origins:
        return f"Name({origins[node.id]})"
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in _IGNORED}
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields["body"] = _without_docstring(node)
        if isinstance(node, ast.JoinedStr):
            fields["values"] = _joined(node.values)
        inner = [f"{name}={_written(v, origins)}" for name, v in fields.items() if _says(v)]
        return f"{type(node).__name__}({','.join(inner)})"
    if isinstance(node, list):
        return f"[{','.join(_written(item, origins) for item in _statements(node))}]"
    return f"{type(node).__name__}:{node!r}"


_IGNORED = ("kind", "type_comment", "type_ignores", "ctx")


def _says(value: Any) -> bool:
    """Whether a field says anything: Pythons differ in which empty ones they have."""
    return value is not None and value != []


def _statements(nodes: list[Any]) -> Iterable[Any]:
    return (node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom | ast.Pass))


def _without_docstring(node: Any) -> list[Any]:
    return list(node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body)


def _joined(pieces: list[Any]) -> list[Any]:
    """The pieces of an f-string with neighbouring texts as one."""
    found: list[Any] = []
    for piece in pieces:
        text = isinstance(piece, ast.Constant)
        if text and found and isinstance(found[-1], ast.Constant):
            found[-1] = ast.Constant(found[-1].value + piece.value)
        elif not text or piece.value:
            found.append(piece)
    return found
