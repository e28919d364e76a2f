"""Compute versions of code: of what decides the figures of a Run, and of the whole tree.

A Run's code version is a hash over every module of this project that its training reaches by its
imports, without those that only show or ship what was trained. Docstrings, comments, layout,
descriptions of keys, import lines and the names of modules do not count: moving or renaming a file
trains nothing again.
"""

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orchestrator
import trainables
from orchestrator.own_code.imports import is_for_type_checkers
from orchestrator.own_code.version import own_version
from orchestrator.planning.former_code import FORMER
from trainables.own_code.finder import used

PACKAGES = (
    Path(orchestrator.__file__).resolve().parent,
    Path(trainables.__file__).resolve().parent,
)
TRAINING = "orchestrator.execution.worker"  # what every trainable is trained by
BATCH_INFERENCE = "orchestrator.execution.batch_worker"  # what every producer is run by
PROBE = "trainables.monitoring.probe"  # what computes and measures the features of an encoder

# Modules that only show or ship what was trained, or that name choices of which a Run uses one.
# They are not hashed, and neither is what only they import. Anything else that is reached counts.
NOT_COUNTED = frozenset(
    {
        "orchestrator.mirror.node_copy",
        "orchestrator.storage.checkpoints",
        "orchestrator.storage.files",
        "orchestrator.storage.manifest",
        "orchestrator.storage.record_shapes",
        "orchestrator.storage.run_log",
        "orchestrator.storage.run_records",
        "orchestrator.storage.tensors",
        "trainables.backbones",
        "trainables.metrics",
        "trainables.models.encoder_shapes",
        "trainables.monitoring.recorder",
        "trainables.networks.names",
        "trainables.networks.timm_names",
        "trainables.networks.timm_networks",
        "trainables.networks.torchvision_networks",
        "trainables.networks.torchvision_shapes",
        "trainables.optimizers.registry",
        "trainables.own_code.names",
        "trainables.schemas.registry",
        "trainables.schedules.registry",
        "trainables.tasks.predictor",
        "trainables.tasks.registry",
    }
)


class CodeNotFound(Exception):
    """A module or name of this project is imported and does not exist; one line."""


@functools.cache
def code_version(*modules: str, choice: str = "") -> str:
    """Return 16 hexadecimal digits over the code of modules and of all that they reach.

    modules: dotted names, such as `trainables.tasks.rotation`; choice: a value of the Run from a
    registry that does not count. Raises CodeNotFound.
    """
    digests = {former for name in reached(*modules) for former in _counted(name)}
    return hashlib.sha256("\0".join([*sorted(digests), choice]).encode()).hexdigest()[:16]


class VersionMemory:
    """Remembers code versions as long as no file of the project changes: computing them parses half
    of the project."""

    def __init__(
        self, known: Mapping[str, Any], remember: Callable[[Mapping[str, Any]], object]
    ) -> None:
        """known: what `remember` was last called with, which stores it; empty if unknown."""
        self._remember = remember
        current = known.get("tree") == tree_version() and isinstance(known.get("versions"), dict)
        self._versions: dict[str, str] = dict(known["versions"]) if current else {}

    def version(self, *modules: str, choice: str = "") -> str:
        """Return what `code_version` returns."""
        name = " ".join([*modules, choice])
        if not isinstance(self._versions.get(name), str):
            self._versions[name] = code_version(*modules, choice=choice)
            self._remember({"tree": tree_version(), "versions": self._versions})
        return self._versions[name]


def own_code_version(module: str) -> tuple[str, list[str]]:
    """Return the version of a module of own code that this process uses, 16 hexadecimal digits, and
    the modules of this project that it imports and that count. Raises CodeNotFound."""
    if module in known_modules():  # named as own code is, and counted as ours
        return "", [module]
    version = own_version(module, used(), _written, _stands_for)
    found = [m for m in version.imports if m in known_modules() and m not in NOT_COUNTED]
    return version.digest, found


def _stands_for(origin: str, name: str) -> str | None:
    """Return what stands for an import by own code: for this project's its code, else None."""
    if not _is_ours(origin):
        return None
    inner = f"{origin}.{name}"
    return _named(inner, "") if inner in known_modules() else _named(origin, name)


@functools.cache
def reached(*modules: str) -> frozenset[str]:
    """Return the modules of this project that count: `modules`, and what they import, in turn."""
    if missing := NOT_COUNTED - known_modules().keys():
        raise CodeNotFound(f"NOT_COUNTED names {sorted(missing)[0]}, which does not exist")
    reached_modules: set[str] = set()
    todo = list(modules)
    while todo:
        name = todo.pop()
        if name not in reached_modules and (name in modules or name not in NOT_COUNTED):
            reached_modules.add(name)
            todo += [origin for origin, _ in _imported(name).values() if origin in known_modules()]
    return frozenset(reached_modules)


@functools.cache
def tree_version(root: Path | None = None) -> str:
    """Return 16 hexadecimal digits over all files of both packages; driver and command agree.
    root: where they lie; default: those that run."""
    digest = hashlib.sha256()
    for package in PACKAGES if root is None else [root / package.name for package in PACKAGES]:
        for path in sorted([*package.rglob("*.py"), *package.rglob("*.yaml")]):
            digest.update(f"{path.relative_to(package.parent)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def known_modules() -> dict[str, Path]:
    """Return dotted name → file of every module and package of this project."""
    files = {}
    for package in PACKAGES:
        for path in package.rglob("*.py"):
            parts = path.relative_to(package.parent).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def _tree(module: str) -> ast.Module:
    return _parsed(_content(module))


@functools.cache
def _content(module: str) -> bytes:
    if module not in known_modules():
        raise CodeNotFound(f"there is no module {module}: the code version would not see it change")
    return known_modules()[module].read_bytes()


@functools.cache
def _parsed(content: bytes) -> ast.Module:
    return ast.parse(content)


@functools.cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """Return imported name → the module that it comes from, and its name there (empty: the module
    itself). Imports for type checkers only are left out."""
    imports: dict[str, tuple[str, str]] = {}
    for node in _runtime_statements(_tree(module)):
        if isinstance(node, ast.Import):
            for item in node.names:
                origin = item.name if item.asname else item.name.partition(".")[0]
                imports[item.asname or origin] = (_checked(item.name, module, origin), "")
        elif isinstance(node, ast.ImportFrom):
            for item in node.names:
                imports[item.asname or item.name] = _origin(node, item.name, module)
    return imports


def _runtime_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement of a tree, those within others too, in their order."""
    for field in _BLOCKS:
        for child in getattr(tree, field, ()):
            if isinstance(child, ast.If) and is_for_type_checkers(child.test):
                for other in child.orelse:
                    yield other
                    yield from _runtime_statements(other)
                continue
            yield child
            yield from _runtime_statements(child)


_BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")  # fields that hold statements


def _origin(node: ast.ImportFrom, name: str, module: str) -> tuple[str, str]:
    if node.level:
        raise CodeNotFound(f"{module} has a relative import: write it in full")
    source = str(node.module)
    if not _is_ours(source):
        return source, name
    if f"{source}.{name}" in known_modules():
        return f"{source}.{name}", ""
    if name not in _defined(source) and name not in _assigned_anywhere(source):
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
    """Return most of the names that a module defines: those of single statements at its top."""
    names: set[str] = set()
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@functools.cache
def _assigned_anywhere(module: str) -> set[str]:
    """Return every name that a module defines or imports. Slower than `_defined`."""
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names |= {item.asname or item.name for item in node.names}
    return names


def _text(module: str) -> str:
    """Return the code of a module as text that is the same on every Python. Imported names are
    replaced by the code that they stand for, so that its place does not count."""
    origins = {name: _named(*origin) for name, origin in _imported(module).items()}
    return _text_of(_content(module), tuple(origins.items()))


@functools.cache
def _text_of(content: bytes, origins: tuple[tuple[str, str], ...]) -> str:
    return _written(_parsed(content), dict(origins))


def _named(origin: str, name: str) -> str:
    """Name something imported: by its code if it is this project's, else by its full name."""
    if not _is_ours(origin):
        return f"{origin}:{name}"
    if origin in NOT_COUNTED:
        return f"ours:{name}"
    return f"ours:{_counted(origin)[0]}:{name}"


def _counted(module: str) -> tuple[str, ...]:
    """Return what counts of a module: its digest, or those of the code that it took the place of,
    where it trains as that did."""
    return FORMER.get(digest(module), (digest(module),))


@functools.cache
def digest(module: str) -> str:
    """Hash a module's code and what it imports; imports have no cycles. Returns 64 hexadecimal
    digits. Raises CodeNotFound."""
    return hashlib.sha256(_text(module).encode()).hexdigest()


def _written(node: Any, origins: dict[str, str]) -> str:
    """Write a syntax tree as text. `ast.dump` differs between versions of Python: newer ones leave
    out empty fields, have fields that older ones lack, and cut f-strings into other pieces."""
    if isinstance(node, ast.Name) and node.id in origins:
        return f"Name({origins[node.id]})"
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in _IGNORED}
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            fields["body"] = _without_docstring(node)
        if isinstance(node, ast.JoinedStr):
            fields["values"] = _joined(node.values)
        inner = [f"{name}={_written(v, origins)}" for name, v in fields.items() if _has_value(v)]
        return f"{type(node).__name__}({','.join(inner)})"
    if isinstance(node, list):
        return f"[{','.join(_written(item, origins) for item in _statements(node))}]"
    return f"{type(node).__name__}:{node!r}"


_IGNORED = ("kind", "type_comment", "type_ignores", "ctx")


def _has_value(value: Any) -> bool:
    """Return whether a field has a value: Pythons differ in which empty ones they have."""
    return value is not None and value != []


def _statements(nodes: list[Any]) -> Iterable[Any]:
    return (node for node in nodes if not _is_silent(node))


def _is_silent(node: Any) -> bool:
    """Return whether a node decides nothing: an import line, `pass`, the description of a key."""
    if isinstance(node, ast.keyword):
        return node.arg == "description"
    return isinstance(node, ast.Import | ast.ImportFrom | ast.Pass)


def _without_docstring(node: Any) -> list[Any]:
    return list(node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body)


def _joined(pieces: list[Any]) -> list[Any]:
    """Join neighboring texts among the pieces of an f-string."""
    joined: list[Any] = []
    for piece in pieces:
        text = isinstance(piece, ast.Constant)
        if text and joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(joined[-1].value + piece.value)
        elif not text or piece.value:
            joined.append(piece)
    return joined
