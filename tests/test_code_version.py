"""A version of code changes with what the code does, not with how it is written down."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import code_version as versions
from trainables.catalog import TRAINABLES


def clear() -> None:
    """Forget what was read, as a new process would."""
    for remembered in (versions.code_version, versions.tree_version, versions._syntax):
        remembered.cache_clear()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with copies of both packages, which versions are taken of."""
    ignore = shutil.ignore_patterns("__pycache__")
    copies = [tmp_path / package.name for package in versions.PACKAGES]
    for package, copied in zip(versions.PACKAGES, copies, strict=True):
        shutil.copytree(package, copied, ignore=ignore)
    monkeypatch.setattr(versions, "PACKAGES", tuple(copies))
    clear()
    yield tmp_path
    clear()


def version(module: str = "trainables.rotation") -> str:
    clear()
    return versions.code_version(module)


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change a file; the change must be one."""
    text = path.read_text(encoding="utf-8")
    assert change(text) != text
    path.write_text(change(text), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: f"# a comment\n{text}# another\n",
        lambda text: text.replace("\n\n\n", "\n\n\n\n\n"),
        lambda text: text.replace(" -> ", "  ->  "),
        lambda text: re.sub(r'"""(.)', r'"""Once more: \1', text),
        lambda text: re.sub(r'^"""[^"]*"""\n', "", text),
    ],
    ids=["comment", "empty lines", "spaces", "docstrings", "no module docstring"],
)
@pytest.mark.parametrize("file", ["trainables/rotation.py", "orchestrator/worker.py"])
def test_how_code_is_written_down_does_not_count(
    packages: Path, file: str, change: Callable[[str], str]
) -> None:
    before = version()
    edit(packages / file, change)
    assert version() == before


@pytest.mark.parametrize(
    "file",
    [
        "trainables/rotation.py",
        "trainables/trainable.py",  # imported
        "trainables/randomness.py",  # imported by what is imported, as `from trainables import`
        "orchestrator/worker.py",  # the epoch loop
    ],
)
def test_code_counts_wherever_the_results_come_from(packages: Path, file: str) -> None:
    before = version()
    edit(packages / file, lambda text: f"{text}\n_NEW = 1\n")
    assert version() != before


def test_one_number_more_or_less_counts(packages: Path) -> None:
    before = version()
    edit(
        packages / "trainables/rotation.py", lambda text: text.replace("* 4).long()", "* 3).long()")
    )
    assert version() != before


@pytest.mark.parametrize("module", ["batches", "batchnorm", "precision", "backbones"])
def test_what_the_worker_loop_trains_with_counts(packages: Path, module: str) -> None:
    before = version()
    edit(packages / f"trainables/{module}.py", lambda text: f"{text}\n_NEW = 1\n")
    assert version() != before


@pytest.mark.parametrize("file", ["trainables/classify.py", "trainables/catalog.py",
                                  "orchestrator/plots.py", "orchestrator/store.py"])  # fmt: skip
def test_another_trainable_s_code_and_bookkeeping_do_not_count(packages: Path, file: str) -> None:
    before = version("trainables.rotation")
    edit(packages / file, lambda text: f"{text}\n_NEW = 1\n")
    assert version("trainables.rotation") == before


@pytest.mark.parametrize("module", ["csv_manifest", "datasets", "folders", "splits"])
def test_a_new_type_of_data_set_does_not_count(packages: Path, module: str) -> None:
    """What was read is in the data's fingerprint; how it was read must not train all again."""
    before = version()
    edit(packages / f"trainables/{module}.py", lambda text: f"{text}\n_NEW = 1\n")
    assert version() == before


def test_trainables_have_different_versions() -> None:
    modules = {kind.__module__ for kind in TRAINABLES.values()}
    assert len({version(module) for module in modules}) == len(modules)


def test_a_version_does_not_depend_on_where_the_code_lies(packages: Path) -> None:
    copied = version()
    assert re.fullmatch("[0-9a-f]{16}", copied)
    moved = packages / "elsewhere"
    moved.mkdir()
    for package in versions.PACKAGES:
        package.rename(moved / package.name)
    versions.PACKAGES = tuple(moved / package.name for package in versions.PACKAGES)
    assert version() == copied


@pytest.mark.parametrize("file", ["orchestrator/plots.py", "orchestrator/studies/digits.yaml"])
def test_the_tree_changes_with_every_byte_of_every_file(packages: Path, file: str) -> None:
    before = versions.tree_version()
    clear()
    assert versions.tree_version() == before
    edit(packages / file, lambda text: f"{text}# a comment\n")
    clear()
    assert versions.tree_version() != before


def test_the_tree_changes_with_a_file_s_name(packages: Path) -> None:
    before = versions.tree_version()
    (packages / "trainables" / "splits.py").rename(packages / "trainables" / "parts.py")
    clear()
    assert versions.tree_version() != before


def test_there_is_no_commit_outside_of_a_checkout(packages: Path) -> None:
    assert versions.git_commit() is None
