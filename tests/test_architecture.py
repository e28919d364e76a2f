"""The rules of the house: who may import whom, how long a file is, what importing does."""

import ast
import graphlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"orchestrator", "trainables"}
FILES = {f"{name}.{f.stem}": f for name in PACKAGES for f in sorted((ROOT / name).rglob("*.py"))}
TREES = {module: ast.parse(path.read_bytes()) for module, path in FILES.items()}
FUNCTIONS = {
    f"{module}:{node.lineno} {node.name}": node
    for module, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
}
DOORS = {
    "mlflow": {"tracking", "services"},
    "ray": {
        "submit",
        "search",
        "schedulers",
        "tune_hooks",
        "trial",
        "launch",
        "worker",
        "jobs",
        "services",
    },
}


def imports(tree: ast.AST) -> set[str]:
    """Dotted names that are imported anywhere in a tree; a relative one begins with a dot."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {item.name for item in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module, *(f"{module}.{item.name}" for item in node.names)}
    return found


def packages(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imports(tree)}


def test_trainables_know_nothing_of_what_runs_them() -> None:
    known = {name for module in FILES if module[0] == "t" for name in packages(TREES[module])}
    assert "torch" in known
    assert not known & {"orchestrator", "ray", "mlflow"}


@pytest.mark.parametrize("stack", DOORS)
def test_the_stack_is_touched_through_few_doors(stack: str) -> None:
    touching = {module.split(".")[1] for module, tree in TREES.items() if stack in packages(tree)}
    assert touching
    assert touching <= DOORS[stack]


def test_imports_point_down_without_circles() -> None:
    graph = {m: imports(tree) & FILES.keys() - {m} for m, tree in TREES.items()}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(FILES)


def test_own_imports_stand_at_the_top_of_a_file_and_in_full() -> None:
    hidden = [name for name, function in FUNCTIONS.items() if packages(function) & PACKAGES]
    assert hidden == []
    # a relative import would not be seen by the code version
    assert [module for module, tree in TREES.items() if "" in packages(tree)] == []


def test_files_and_functions_are_short_and_have_a_place_and_a_purpose() -> None:
    lengths = {module: len(path.read_text("utf-8").splitlines()) for module, path in FILES.items()}
    assert [module for module, lines in lengths.items() if lines > 350] == []
    lengths = {name: (f.end_lineno or 0) - f.lineno + 1 for name, f in FUNCTIONS.items()}
    assert [name for name, lines in lengths.items() if lines > 60] == []
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []
    assert {path.parent for path in FILES.values()} == {ROOT / name for name in PACKAGES}
    odds = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    assert not odds & {path.stem for path in FILES.values()}


def run(code: str, folder: Path) -> str:
    """What a fresh Python prints."""
    command = [sys.executable, "-c", f"import importlib, sys, threading\n{code}"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def test_importing_starts_no_thread_and_writes_nothing(tmp_path: Path) -> None:
    load = f"for module in {sorted(FILES)}: importlib.import_module(module)\n"
    names = "print([thread.name for thread in threading.enumerate()])"
    assert run(load + names, tmp_path) == "['MainThread']\n"
    assert list(tmp_path.iterdir()) == []


def test_commands_that_only_look_do_not_load_torch(tmp_path: Path) -> None:
    loaded = run("import orchestrator.commands_look\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.commands_look" in loaded
    assert "torch" not in loaded


def test_a_plan_needs_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    loaded = run("import orchestrator.commands_plan\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.prepare" in loaded
    assert not {"ray", "mlflow", "matplotlib"} & set(loaded)


@pytest.mark.parametrize("module", ["launch", "submit", "commands_train"])
def test_what_takes_seconds_to_load_is_left_to_those_who_need_it(
    tmp_path: Path, module: str
) -> None:
    loaded = run(f"import orchestrator.{module}\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.store" in loaded
    assert not {"torchvision", "sklearn"} & set(loaded)
    if module == "launch":  # every worker and controller loads it
        assert not {"mlflow", "orchestrator.study_file", "trainables.data.datasets"} & set(loaded)
