"""Versions of code: what a trainable's results depend on, and which tree a command runs."""

import ast
import functools
import hashlib
import subprocess
from pathlib import Path

import orchestrator
import trainables

PACKAGES = (
    Path(orchestrator.__file__).resolve().parent,
    Path(trainables.__file__).resolve().parent,
)


# what knows every trainable, and what only looks on
_NOT_COUNTED = ("trainables.catalog", "trainables.predict", "trainables.probe")


@functools.cache
def code_version(module: str, loop_file: str = "worker.py") -> str:
    """16 hexadecimal digits over the syntax trees, without docstrings, of a `trainables` module
    and the loop that runs it, with the `trainables` modules that both import. module: such as
    `trainables.rotation`; loop_file: of `orchestrator`.
    """
    loop = PACKAGES[0] / loop_file
    digest = hashlib.sha256(_syntax(loop).encode())
    # another trainable, or another way to look at this one, must not change this one
    used = {name for name in _imports(loop) if name not in _NOT_COUNTED}
    for name in sorted(set().union(*(_reachable(name) for name in {module, *used}))):
        digest.update(f"{name}\0{_syntax(_file(name))}".encode())
    return digest.hexdigest()[:16]


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


def _file(module: str) -> Path:
    return PACKAGES[1] / f"{module.removeprefix('trainables.')}.py"


def _reachable(module: str) -> set[str]:
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found and _file(name).is_file():
            found.add(name)
            todo += _imports(_file(name))
    return found


def _imports(path: Path) -> list[str]:
    """The `trainables` modules that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("trainables"):
            found += [str(node.module), *(f"{node.module}.{item.name}" for item in node.names)]
        elif isinstance(node, ast.Import):
            found += [item.name for item in node.names if item.name.startswith("trainables.")]
    return found


@functools.cache
def _syntax(path: Path) -> str:
    """The syntax tree as text, without docstrings: comments and layout do not count."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)
