"""A code version changes with what the code does, not with how it is written or where it lies."""

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.planning import code_version as versions
from orchestrator.planning import prepare
from orchestrator.storage.files import read_json, write_json
from trainables.config import as_plain
from trainables.metrics import METRICS
from trainables.tasks.registry import PRODUCERS, TRAINABLES

CACHED = [
    function
    for function in vars(versions).values()
    if hasattr(function, "cache_clear") and function.__module__ == versions.__name__
    and function not in (versions._parsed, versions._text_of)  # they depend on a file's text alone
]  # fmt: skip


NEEDED = {"segment": {"network": "deeplabv3"}}


def forget() -> None:
    """Forget what was read, as a new process would."""
    for function in CACHED:
        function.cache_clear()


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with copies of both packages, which versions are taken of."""
    ignore = shutil.ignore_patterns("__pycache__")
    copies = [tmp_path / package.name for package in versions.PACKAGES]
    for package, copy in zip(versions.PACKAGES, copies, strict=True):
        shutil.copytree(package, copy, ignore=ignore)
    monkeypatch.setattr(versions, "PACKAGES", tuple(copies))
    forget()
    yield tmp_path
    forget()


def version(task: str = "rotation", **config: object) -> str:
    """The version of the code of a Run with the default configuration, but for `config`."""
    forget()
    return remembered(task, **config)


def remembered(task: str, **config: object) -> str:
    if task in PRODUCERS:
        return prepare.run_code_version(task, {})
    config = {"dataset": "d", **NEEDED.get(task, {}), **config}
    kind = TRAINABLES[task]
    settled = kind.settled(kind.Config.model_validate(config), True)
    return prepare.run_code_version(task, as_plain(settled))


def every() -> dict[str, str]:
    forget()
    return {task: remembered(task) for task in (*TRAINABLES, *PRODUCERS)}


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a file; the change must be one."""
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


def add(path: Path) -> None:
    """One more constant: code that could decide anything."""
    edit(path, lambda text: f"{text}\n_NEW = 1\n")


def move(root: Path, old: str, new: str) -> None:
    """Move or rename a module, and write every import of it anew."""
    source, target = (root / f"{name.replace('.', '/')}.py" for name in (old, new))
    target.parent.mkdir(exist_ok=True)
    source.rename(target)
    (parent, stem), (to, name) = old.rsplit(".", 1), new.rsplit(".", 1)
    for path in root.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = text.replace(f"from {old} import", f"from {new} import")
        text = re.sub(rf"from {parent} import {stem}\b", f"from {to} import {name}", text)
        if f"from {to} import {name}" in text:
            text = re.sub(rf"\b{stem}\.(?=\w+\()", f"{name}.", text)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f"# a comment\n{text}# another\n",
        lambda text: text.replace("\n\n\n", "\n\n\n\n\n"),
        lambda text: text.replace(" -> ", "  ->  "),
        lambda text: re.sub(r'"""(.)', r'"""Once more: \1', text),
        lambda text: re.sub(r'^"""[^"]*"""\n', "", text),
        lambda text: re.sub(r'^("""[^"]*"""\n)', r"\1import this_is_unused\n", text),
    ],
    ids=["comment", "empty lines", "spaces", "docstrings", "no module docstring", "unused import"],
)
@pytest.mark.parametrize(
    "file", ["trainables/tasks/rotation.py", "trainables/engine/step.py",
             "orchestrator/execution/worker.py"]
)  # fmt: skip
def test_how_code_is_written_does_not_count(
    copied: Path, file: str, change: Callable[[str], str]
) -> None:
    before = version()
    edit(copied / file, change)
    assert version() == before


COUNTED_BY_ALL = [
    "trainables/engine/loop.py",
    "trainables/engine/early_stopping.py",
    "trainables/engine/evaluation.py",
    "trainables/engine/step.py",
    "trainables/loading/batches.py",
    "trainables/models/weights.py",
    "trainables/monitoring/feature_warnings.py",  # it can end a Run
    "trainables/numerics/precision.py",
    "trainables/numerics/randomness.py",
    "trainables/numerics/sync_batchnorm.py",
    "trainables/trainable.py",
    "trainables/training_config.py",
    "orchestrator/execution/worker.py",
]


def test_the_description_of_a_key_does_not_count(copied: Path) -> None:
    before = version()
    edit(
        copied / "trainables/training_config.py",
        lambda text: text.replace("description=", 'description="Once more: " + ', 1),
    )
    assert version() == before


@pytest.mark.parametrize("file", COUNTED_BY_ALL)
def test_what_trains_counts_for_every_trainable(copied: Path, file: str) -> None:
    before = every()
    add(copied / file)
    after = every()
    assert all(after[task] != before[task] for task in TRAINABLES)


def test_choosing_the_worst_epoch_changes_every_version(copied: Path) -> None:
    before = every()
    edit(
        copied / "trainables/engine/early_stopping.py",
        lambda text: text.replace('1 if mode == "min" else -1', '-1 if mode == "min" else 1'),
    )
    after = every()
    assert all(after[task] != before[task] for task in TRAINABLES)


def test_a_crop_in_a_moved_file_changes_it_and_moving_alone_does_not(copied: Path) -> None:
    before = every()
    move(copied, "trainables.transforms.geometry", "trainables.numerics.crops")
    assert every() == before
    add(copied / "trainables/numerics/crops.py")
    after = every()
    assert all(after[task] != before[task] for task in TRAINABLES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trainables.numerics.randomness", "trainables.numerics.counted_random"),  # `from x import`
        ("trainables.engine.early_stopping", "trainables.early"),
        ("orchestrator.storage.run_log", "orchestrator.storage.log_file"),
    ],
)
def test_moving_or_renaming_a_file_changes_nothing(
    copied: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    before = every()
    move(copied, old, new)
    renamed = frozenset(new if name == old else name for name in versions.NOT_COUNTED)
    monkeypatch.setattr(versions, "NOT_COUNTED", renamed)
    assert every() == before


def test_the_same_name_from_another_module_changes_the_version(copied: Path) -> None:
    before = version()
    other = copied / "trainables/engine/other.py"
    shutil.copyfile(copied / "trainables/engine/early_stopping.py", other)
    edit(other, lambda text: text.replace("else -1", "else -2"))
    edit(
        copied / "trainables/engine/loop.py",
        lambda text: text.replace("trainables.engine.early_stopping", "trainables.engine.other"),
    )
    assert version() != before


def test_one_number_more_or_less_counts(copied: Path) -> None:
    before = version()
    edit(
        copied / "trainables/tasks/rotation.py",
        lambda text: text.replace("* 4).long()", "* 3).long()"),
    )
    assert version() != before


@pytest.mark.parametrize("registry", ["optimizers", "schedules"])
def test_a_choice_s_own_code_counts_for_those_that_use_it(copied: Path, registry: str) -> None:
    chosen, others = {
        "optimizers": ({"optimizer": "lars"}, {"optimizer": "sgd"}),
        "schedules": ({"schedule": "poly"}, {"schedule": "cosine"}),
    }[registry]
    using, before = version(**chosen), version(**others)
    add(copied / f"trainables/{registry}/{next(iter(chosen.values()))}.py")
    assert version(**chosen) != using
    assert version(**others) == before


@pytest.mark.parametrize(("metric", "chooses"), [("loss", False), ("accuracy", True)])
def test_the_direction_of_the_metric_that_stops_a_run_or_chooses_its_checkpoint_counts(
    monkeypatch: pytest.MonkeyPatch, metric: str, chooses: bool
) -> None:
    stop = {"metric": f"val/{metric}", "patience": 2}
    before, plain = version(early_stopping=stop), version()
    other = "max" if METRICS[metric].mode == "min" else "min"
    monkeypatch.setitem(METRICS, metric, replace(METRICS[metric], mode=other))
    assert version(early_stopping=stop) != before
    assert (version() != plain) is chooses


@pytest.mark.parametrize(
    "file",
    [
        "trainables/tasks/classify.py",
        "trainables/tasks/registry.py",
        "trainables/optimizers/registry.py",
        "trainables/metrics.py",
        "trainables/monitoring/tsne.py",
        "trainables/monitoring/recorder.py",
        "orchestrator/plots/curves.py",
        "orchestrator/storage/checkpoints.py",
        "orchestrator/tracking/sync.py",
    ],
)
def test_another_trainable_s_code_and_bookkeeping_do_not_count(copied: Path, file: str) -> None:
    before = version()
    add(copied / file)
    assert version() == before


@pytest.mark.parametrize(
    "module",
    [
        *("layouts/csv_lists", "data/datasets", "layouts/class_folders", "data/splits"),
        *(
            "pixels/images",
            "pixels/class_table",
            "pixels/mask_values",
            "pixels/bands",
            "loading/mask_counts",
        ),
    ],
)
def test_how_a_data_set_is_read_does_not_count(copied: Path, module: str) -> None:
    """What was read is in the data's fingerprint; a new type must not train all again."""
    before = {task: version(task) for task in TRAINABLES}
    add(copied / f"trainables/{module}.py")
    assert {task: version(task) for task in TRAINABLES} == before


def test_probes_count_for_trainables_that_are_probed(copied: Path) -> None:
    before = every()
    add(copied / "trainables/monitoring/probe.py")
    assert version("byol") != before["byol"]


def test_every_module_that_training_reaches_is_counted_or_listed_as_not() -> None:
    """Reached by a reading of the imports that is not the one under test."""
    root = versions.PACKAGES[0].parent
    todo = ["orchestrator.execution.worker", "trainables.tasks.byol", "trainables.tasks.segment"]
    counted, seen = versions.reached(*todo), set()
    while todo:
        name = todo.pop()
        path = root / f"{name.replace('.', '/')}.py"
        if name in seen or not path.is_file() or name in versions.NOT_COUNTED:
            continue
        seen.add(name)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # not what types alone need
            if isinstance(node, ast.ImportFrom):
                todo += [str(node.module), *(f"{node.module}.{item.name}" for item in node.names)]
    assert seen - counted == set()
    assert {"trainables.engine.loop", "trainables.transforms.views"} <= counted


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("from trainables.engine.step import", "from trainables.engine.stride import", "no module"),
        ("import named_figures,", "import named,", "imports named from .*, which does not"),
        ("from trainables.config import as_plain", "from .config import as_plain", "relative"),
    ],
)
def test_a_module_that_is_not_found_is_an_error(
    copied: Path, old: str, new: str, said: str
) -> None:
    edit(copied / "trainables/engine/loop.py", lambda text: text.replace(old, new))
    with pytest.raises(versions.CodeNotFound, match=said):
        version()


def test_a_listed_module_that_is_gone_is_an_error(copied: Path) -> None:
    (copied / "trainables/tasks/predictor.py").unlink()
    with pytest.raises(versions.CodeNotFound, match="NOT_COUNTED names trainables.tasks.predictor"):
        version()


PIECES = '''
async def f(a, /, b: int = 1, *c, d=f"{1!r:>{2}}{{x}}" "y" f"{3=}", **e) -> "int":
    """A docstring."""
    async with a as b, c: pass
    match a:
        case [1, *_] | {"k": None}: return -1
    return lambda x=u"s": (yield)
class C[T]: x: int
'''.replace("[T]", "")


def other_pythons() -> list[str]:
    """Other versions of Python on this machine."""
    wanted = {"3.11", "3.12", "3.13"} - {f"3.{sys.version_info.minor}"}
    found = []
    for version in sorted(wanted):
        for path in (shutil.which(f"python{version}"), *pyenv(version)):
            if path and answers(str(path), version):
                found.append(str(path))
                break
    return found


def pyenv(version: str) -> list[Path]:
    return sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))


def answers(python: str, version: str) -> bool:
    command = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() == version


def memory(path: Path) -> versions.VersionMemory:
    return versions.VersionMemory(read_json(path) or {}, partial(write_json, path))


def test_every_python_gives_the_same_version() -> None:
    pythons = other_pythons()
    if not pythons:
        pytest.skip("this machine has one Python")
    root = versions.PACKAGES[0].parent
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "import ast\n"
        "from orchestrator.planning import code_version as c\n"
        f"print(c._written(ast.parse({PIECES!r}), {{}}))\n"
        "for task in ('byol', 'classify', 'rotation', 'segment'):\n"
        "    print(c.code_version(c.TRAINING, f'trainables.tasks.{task}'))\n"
    )
    outputs = {
        subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
        for python in (sys.executable, *pythons)
    }
    assert len(outputs) == 1


def test_trainables_have_different_versions() -> None:
    found = every()
    assert len(set(found.values())) == len(found)


def test_a_version_does_not_depend_on_where_the_code_lies(copied: Path) -> None:
    before = version()
    assert re.fullmatch("[0-9a-f]{16}", before)
    moved = copied / "elsewhere"
    moved.mkdir()
    for package in versions.PACKAGES:
        package.rename(moved / package.name)
    versions.PACKAGES = tuple(moved / package.name for package in versions.PACKAGES)
    assert version() == before


@pytest.mark.parametrize(
    "file", ["orchestrator/plots/curves.py", "orchestrator/studies/digits.yaml"]
)
def test_the_tree_changes_with_every_byte_of_every_file(copied: Path, file: str) -> None:
    before = versions.tree_version()
    forget()
    assert versions.tree_version() == before
    edit(copied / file, lambda text: f"{text}# a comment\n")
    forget()
    assert versions.tree_version() != before


def test_the_tree_changes_with_a_file_s_name(copied: Path) -> None:
    before = versions.tree_version()
    (copied / "trainables/data/splits.py").rename(copied / "trainables/data/parts.py")
    forget()
    assert versions.tree_version() != before


def test_versions_are_remembered_until_a_file_changes(copied: Path, tmp_path: Path) -> None:
    module, path = "trainables.tasks.rotation", tmp_path / "versions.json"
    computed = memory(path).version(module, choice="max")
    assert computed == versions.code_version(module, choice="max")
    kept = json.loads(path.read_bytes())
    kept["versions"] = {name: "remembered" for name in kept["versions"]}
    path.write_text(json.dumps(kept), encoding="utf-8")
    assert memory(path).version(module, choice="max") == "remembered"
    assert memory(path).version(module, choice="min") not in (
        "remembered",
        computed,
    )
    add(copied / "trainables/tasks/rotation.py")
    forget()
    assert memory(path).version(module, choice="max") not in (
        "remembered",
        computed,
    )


@pytest.mark.parametrize("content", ["", "[]", '{"tree": 1}', '{"versions": []}'])
def test_a_damaged_memory_of_versions_is_made_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "versions.json"
    path.write_text(content, encoding="utf-8")
    module = "trainables.tasks.rotation"
    assert memory(path).version(module) == versions.code_version(module)
    assert list(json.loads(path.read_bytes())["versions"].values()) == [
        versions.code_version(module)
    ]
