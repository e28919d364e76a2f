"""The rules of the house: which room may import which, how long a file is, what importing does."""

import ast
import graphlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"orchestrator", "trainables"}


def dotted(path: Path) -> str:
    """`orchestrator/cli/main.py` → `orchestrator.cli.main`; a package's file → the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {dotted(path): path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))}
TREES = {module: ast.parse(path.read_bytes()) for module, path in FILES.items()}
FUNCTIONS = {
    f"{module}:{node.lineno} {node.name}": node
    for module, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
}
CLASSES = {
    f"{module}:{node.lineno} {node.name}": node
    for module, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef)
}

# Who may import whom: a room, and the rooms of its own package below it. `trainables` is below
# `orchestrator`. A file at the top of a package (the contract) is a room of its own.
ARROWS: dict[str, set[str]] = {
    "orchestrator": {"api"},  # its names, for type checkers; loaded when one is used
    "orchestrator.api": {"cli", "tracking", "planning", "config"},
    "orchestrator.__main__": {"cli"},
    "orchestrator.cli": {
        "driver", "clusters", "manifests", "execution", "services", "report_page", "tracking",
        "pages", "drawing", "reporting", "planning", "notify", "storage", "config", "own_code",
    },
    "orchestrator.driver": {
        "needs", "tuning", "execution", "services", "report_page", "tracking", "reporting",
        "planning", "study_data", "meters", "mirror", "notify", "objects", "storage", "config",
        "sharing", "warm",
    },
    "orchestrator.sharing": {"planning", "needs"},
    "orchestrator.clusters": {"execution", "objects", "rest", "config", "needs"},
    "orchestrator.manifests": {"config"},
    "orchestrator.notify": {"storage", "config"},
    "orchestrator.report_page": {
        "tracking", "plots", "drawing", "reporting", "planning", "study_data", "config",
    },
    "orchestrator.tuning": {
        "execution", "meters", "tracking", "drawing", "reporting", "planning", "storage", "config",
        "sampling",
    },
    "orchestrator.tracking": {
        "pages", "plots", "drawing", "reporting", "planning", "study_data", "meters", "storage",
        "rest",
    },
    "orchestrator.pages": set(),
    "orchestrator.plots": {"drawing", "reporting"},
    "orchestrator.drawing": {"pages", "reporting", "storage", "config", "sampling", "warm"},
    "orchestrator.meters": {"storage"},
    "orchestrator.execution": {
        "services", "planning", "meters", "mirror", "storage", "config", "own_code", "warm",
        "rest", "needs",
    },
    "orchestrator.services": {"rest", "storage", "config", "warm"},
    "orchestrator.mirror": {"objects", "storage"},
    "orchestrator.objects": {"storage", "config"},
    "orchestrator.rest": {"config", "pages"},
    "orchestrator.reporting": {"statistics", "config", "sampling", "needs"},
    "orchestrator.statistics": set(),
    "orchestrator.planning": {"study_data", "storage", "config", "own_code", "sampling", "needs"},
    "orchestrator.study_data": {"config"},
    "orchestrator.storage": {"config"},
    "orchestrator.warm": set(),
    "orchestrator.config": {"own_code", "sampling", "needs"},
    "orchestrator.needs": set(),
    "orchestrator.own_code": set(),
    "orchestrator.sampling": set(),
    "trainables": set(),
    "trainables.tasks": {
        "monitoring", "loading", "pixels", "models", "networks", "transforms", "numerics",
        "schemas", "trainable", "producer", "dataset", "training_config", "config", "on_use",
        "own_code", "backbones",
    },
    "trainables.checking": {
        "engine", "tasks", "loading", "data", "models", "numerics", "own_code", "trainable",
        "training_config", "config", "metrics",
    },
    "trainables.engine": {
        "monitoring", "loading", "models", "networks", "transforms", "numerics", "optimizers",
        "trainable", "dataset", "training_config", "config", "metrics",
    },
    "trainables.monitoring": {
        "networks", "loading", "data", "layouts", "pixels", "transforms", "numerics",
        "trainable", "dataset", "training_config", "metrics", "record_files",
    },
    "trainables.loading": {"contents", "data", "layouts", "pixels", "numerics", "dataset"},
    "trainables.contents": {"data", "pixels", "dataset", "files"},
    "trainables.data": {
        "layouts", "pixels", "numerics", "own_code", "dataset", "config", "files",
    },
    "trainables.own_code": {"metrics", "networks"},
    "trainables.layouts": {"pixels", "dataset", "files"},
    "trainables.pixels": {"dataset", "files"},
    "trainables.trainable": {
        "models", "transforms", "numerics", "schemas", "dataset", "training_config",
    },
    "trainables.producer": {"schemas", "dataset"},
    "trainables.schemas": {
        "models", "networks", "own_code", "dataset", "training_config", "config", "metrics",
        "backbones",
    },
    "trainables.models": {"training_config", "files", "backbones", "own_code", "networks"},
    "trainables.backbones": {"own_code", "networks"},
    "trainables.networks": set(),
    "trainables.transforms": {"numerics", "dataset"},
    "trainables.numerics": {"training_config"},
    "trainables.training_config": {"optimizers", "schedules", "config", "backbones"},
    "trainables.optimizers": {"on_use"},
    "trainables.schedules": set(),
    "trainables.dataset": set(),
    "trainables.files": set(),
    "trainables.on_use": set(),
    "trainables.metrics": set(),
    "trainables.record_files": set(),
    "trainables.config": set(),
}  # fmt: skip
ROOMS = {
    name for name in ARROWS if name.count(".") == 1 and (ROOT / name.replace(".", "/")).is_dir()
}
DOORS = {
    "mlflow": {
        "rest.mlflow_api",
        "rest.mlflow_login",
        "tracking.mlflow_client",
        "tracking.mlflow_writer",
        "pages.mlflow_app",
    },
    "ray": {
        "driver.driver",
        "clusters.check_job",
        "sharing.board",
        "tuning.tuner",
        "tuning.ray_tune",
        "tuning.schedulers",
        "tuning.trial_worker",
        "execution.failures",
        "meters.gauges",
        "execution.launcher",
        "execution.ray_jobs",
        "execution.resources",
        "services.ray_head",
        "warm.head",
        "warm.ids",
        "warm.quick_trainer",
    },
}


def room_of(module: str) -> str:
    """`orchestrator.cli.main` → `orchestrator.cli`; a file at the top is its own room."""
    return ".".join(module.split(".")[:2])


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


def own_imports(module: str) -> set[str]:
    """Modules of this project that a module imports."""
    return {name for name in imports(TREES[module]) if name in FILES and name not in PACKAGES}


def test_trainables_know_nothing_of_what_runs_them() -> None:
    known = {name for module in FILES if module[0] == "t" for name in packages(TREES[module])}
    assert "torch" in known
    assert not known & {"orchestrator", "ray", "mlflow"}


@pytest.mark.parametrize("stack", DOORS)
def test_the_stack_is_touched_through_few_doors(stack: str) -> None:
    touching = {m.partition(".")[2] for m, tree in TREES.items() if stack in packages(tree)}
    assert touching
    assert touching <= DOORS[stack]


def test_every_room_imports_those_below_it_and_no_other() -> None:
    found: dict[str, set[str]] = {room: set() for room in ARROWS}
    for module in FILES:
        package, here = module.partition(".")[0], room_of(module)
        rooms = {room_of(name) for name in own_imports(module)} - {here}
        found[here] |= {room.partition(".")[2] for room in rooms if room.startswith(package)}
    assert {room: sorted(arrows - ARROWS[room]) for room, arrows in found.items()} == {
        room: [] for room in ARROWS
    }
    unused = {room: sorted(ARROWS[room] - arrows) for room, arrows in found.items()}
    assert {room: arrows for room, arrows in unused.items() if arrows} == {}


def test_the_readme_lists_every_room_with_its_arrows() -> None:
    text = (ROOT / "orchestrator/README.md").read_text("utf-8")
    listed = {}
    for room, arrows in re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", text, re.MULTILINE):
        if f"orchestrator.{room}" in ROOMS:
            listed[f"orchestrator.{room}"] = set(re.findall(r"\w+", arrows)) - {"nothing"}
    assert listed == {room: ARROWS[room] for room in ROOMS if room.startswith("orchestrator.")}


def test_the_allowed_arrows_point_one_way() -> None:
    graph = {
        room: {f"{room.partition('.')[0]}.{below}" for below in arrows}
        for room, arrows in ARROWS.items()
    }
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(ARROWS)
    assert "execution" not in ARROWS["orchestrator.tracking"]
    assert "tracking" not in ARROWS["orchestrator.execution"]


def test_files_of_a_room_import_each_other_without_circles() -> None:
    graph = {module: own_imports(module) - {module} for module in FILES}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(FILES)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_has_four_to_nine_files_and_its_own_tests(room: str) -> None:
    files = [m for m in FILES if room_of(m) == room and m != room]
    assert 4 <= len(files) <= 9
    assert list((ROOT / "tests" / room.replace(".", "/")).glob("test_*.py"))


def test_own_imports_stand_at_the_top_of_a_file_and_in_full() -> None:
    hidden = [name for name, function in FUNCTIONS.items() if packages(function) & PACKAGES]
    assert hidden == []
    # a relative import would not be seen by the code version
    assert [module for module, tree in TREES.items() if "" in packages(tree)] == []


def test_files_classes_and_functions_are_short_and_have_a_place_and_a_purpose() -> None:
    lengths = {module: len(path.read_text("utf-8").splitlines()) for module, path in FILES.items()}
    assert [module for module, lines in lengths.items() if lines > 350] == []
    lengths = {name: (f.end_lineno or 0) - f.lineno + 1 for name, f in FUNCTIONS.items()}
    assert [name for name, lines in lengths.items() if lines > 60] == []
    lengths = {name: (c.end_lineno or 0) - c.lineno + 1 for name, c in CLASSES.items()}
    assert [name for name, lines in lengths.items() if lines >= 200] == []
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []
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
    loaded = run("import orchestrator.cli.status\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.cli.status" in loaded
    assert "torch" not in loaded


def test_a_plan_needs_neither_ray_nor_mlflow(tmp_path: Path) -> None:
    loaded = run("import orchestrator.cli.plan\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.planning.prepare" in loaded
    assert not {"ray", "mlflow", "matplotlib"} & set(loaded)


@pytest.mark.parametrize("module", ["execution.launcher", "driver.driver", "cli.submit"])
def test_what_takes_seconds_to_load_is_left_to_those_who_need_it(
    tmp_path: Path, module: str
) -> None:
    loaded = run(f"import orchestrator.{module}\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.storage.checkpoints" in loaded
    assert not {"torchvision", "sklearn"} & set(loaded)
    if module == "execution.launcher":  # every worker and controller loads it
        assert not {"mlflow", "orchestrator.config.study_schema", "trainables.data.datasets"} & set(
            loaded
        )
