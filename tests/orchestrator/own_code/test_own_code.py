"""A study with own code: what is refused in a line, what is hashed, what travels."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.errors import StudyError
from orchestrator.config.study_loader import from_mapping, read
from orchestrator.own_code import entry_points
from orchestrator.own_code.items import items_of, ship
from orchestrator.planning.code_version import own_code_version
from orchestrator.planning.prepare import prepare
from orchestrator.storage.home import Home
from trainables.own_code import finder

TRAINABLE = '''
"""Mine."""
from trainables.trainable import Trainable
from trainables.training_config import TrainableConfig


class Mine(Trainable):
    Config, FIGURES, SELECT = TrainableConfig, ("loss",), "val/loss"
    PREDICTS = NEEDS = None

    def __init__(self, config, data):
        """Build nothing."""

    def loss(self, model, batch):
        return 1.0

    def evaluate(self, batch):
        return {}

    def metrics(self, sums):
        return {"loss": 0.0}
'''
STUDY = """
study: mine
code: [zz_mine.py]
data: {digits: {type: digits, limit: 40}}
stages: {only: {trainable: zz_mine:Mine, config: {dataset: digits, epochs: 1}}}
compare: {metric: test/loss}
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    finder.use({})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "zz_mine.py").write_text(TRAINABLE, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    return tmp_path / "study.yaml"


def change(study: Path, old: str, new: str, file: str = "zz_mine.py") -> None:
    text = (study.parent / file).read_text(encoding="utf-8")
    assert old in text
    (study.parent / file).write_text(text.replace(old, new), encoding="utf-8")


def key(study: Path, home: Home) -> str:
    (run,) = prepare(read(str(study)), None, home).runs
    return run.key


def refused(study: Path) -> list[str]:
    with pytest.raises(StudyError) as error:
        read(str(study))
    assert all("\n" not in line for line in error.value.errors)
    return error.value.errors


def test_a_study_names_its_own_trainable(study: Path, home: Home) -> None:
    (run,) = prepare(read(str(study)), None, home).runs
    assert (run.trainable, run.select, run.predicts) == ("zz_mine:Mine", "val/loss", False)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("class Mine(Trainable):", "class Mine:", "must be a subclass of"),
        ("def metrics", "def metric", "zz_mine:Mine lacks metrics: define it, see Trainable"),
        ('("loss",), "val/loss"', '("loss",), "test/loss"', "the epoch is chosen by val/loss"),
        ('("loss",), "val/loss"', '("loss", "zz"), "val/loss"', 'METRICS = (Metric("zz"'),
        ("= TrainableConfig, (", "= dict, (", "Config is the class dict: make it a Train"),
        ("    PREDICTS = NEEDS = None", "", "lacks PREDICTS: set it in the class"),
        ("class Mine", "class Other", "zz_mine defines no Mine: correct the name"),
        ('"""Mine."""', "import zz_nowhere", "zz_mine.py:2: ModuleNotFoundError"),
        ('"""Mine."""', "x = 1 / 0", "zz_mine.py:2: ZeroDivisionError: division by zero"),
        ('"""Mine."""', "x = = 1", "zz_mine.py:2: SyntaxError: invalid syntax: correct it"),
        ('"""Mine."""', "raise SystemExit(3)", "zz_mine.py:2: SystemExit: 3"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(
    study: Path, old: str, new: str, line: str
) -> None:
    change(study, old, new)
    (said,) = refused(study)
    assert said.startswith("stages.only.trainable: ") and line in said


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[zz_mine.py]", "[gone.py]", r"code\[0\]: there is no file or folder .*gone.py: correct"),
        ("[zz_mine.py]", "[zz_mine.py, study.yaml]", r"code\[1\]: .* is no Python file"),
        ("[zz_mine.py]", "[zz_mine.py, data]", r"code\[1\]: .*data is no package: add an empty"),
        ("[zz_mine.py]", "[]", r".*zz_mine is neither listed in `code` nor installed: add `code: "),
        ("zz_mine:Mine", '"zz_mine:"', r".*'zz_mine:' is no name of own code: write module:Name"),
        ("[zz_mine.py]", "[zz_mine.py, json.py]", r"code\[1\]: .* installed module json of Python"),
        ("[zz_mine.py]", "[zz_mine.py, rich.py]", r"code\[1\]: .* of the installed module .*rich"),
        ("[zz_mine.py]", "[zz_mine.py, ray-2.py]", r"code\[1\]: .* cannot be imported as 'ray-2'"),
        ("[zz_mine.py]", "[zz_mine.py, trainables.py]", r"code\[1\]: .* of this product: rename"),
        ("[zz_mine.py]", "7", r"code: input should be a valid list"),
        ("type: digits", "type: zz_mine:Mine", r"data.digits.type: .* must be a function from"),
    ],
)
def test_wrong_lines_of_a_study_are_refused(study: Path, old: str, new: str, said: str) -> None:
    for name in ("json.py", "rich.py", "ray-2.py", "trainables.py"):
        (study.parent / name).write_text("", encoding="utf-8")
    (study.parent / "data").mkdir()
    change(study, old, new, "study.yaml")
    lines = refused(study)
    assert any(re.match(said, line) for line in lines), lines


def test_a_module_that_would_stay_behind_is_named(study: Path) -> None:
    (study.parent / "zz_beside.py").write_text("", encoding="utf-8")
    change(study, '"""Mine."""', "import zz_beside")
    (line,) = refused(study)
    assert line.endswith("is not in `code:`: add zz_beside.py to `code`")
    assert "zz_mine.py:2 imports zz_beside" in line


def test_what_own_code_prints_is_not_in_the_output(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(study, '"""Mine."""', "print('hello')")
    read(str(study))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


def test_the_key_follows_exactly_what_the_trainable_runs(study: Path, home: Home) -> None:
    (study.parent / "zz_other.py").write_text("X = 1\n", encoding="utf-8")
    package = study.parent / "zz_pack"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "net.py").write_text("from zz_pack import deep\nX = deep.X\n", encoding="utf-8")
    (package / "deep.py").write_text("import zz_pack.net\nX = 1\n", encoding="utf-8")
    change(study, "[zz_mine.py]", "[zz_mine.py, zz_other.py, zz_pack]", "study.yaml")
    change(study, '"""Mine."""', "def late():\n    from zz_pack import net\n    return net")
    first = key(study, home)
    for path, text in (
        (study.parent / "zz_mine.py", "# a comment\n"),
        (study.parent / "zz_other.py", "X = 2\n"),
    ):
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        assert key(study, home) == first
    change(study, "Build nothing", "Build nothing at all")
    assert key(study, home) == first
    (package / "deep.py").write_text("import zz_pack.net\nX = 2\n", encoding="utf-8")
    second = key(study, home)
    assert second != first
    change(study, "return 1.0", "return 2.0")
    third = key(study, home)
    assert third not in (first, second)
    (package / "deep.py").rename(package / "deeper.py")
    (package / "net.py").write_text("from . import deeper as deep\nX = deep.X\n", encoding="utf-8")
    assert key(study, home) == third  # moved and renamed, as our own code may be


def test_which_of_two_modules_is_used_is_in_the_key(study: Path, home: Home) -> None:
    for name, value in (("zz_a", 1), ("zz_b", 2)):
        (study.parent / f"{name}.py").write_text(f"X = {value}\n", encoding="utf-8")
    change(study, "[zz_mine.py]", "[zz_mine.py, zz_a.py, zz_b.py]", "study.yaml")
    change(study, '"""Mine."""', "import zz_a, zz_b\nfrom zz_a import X\nY = X")
    first = key(study, home)
    change(study, "from zz_a import X", "from zz_b import X")
    assert key(study, home) != first


def test_code_of_this_project_that_own_code_imports_counts(study: Path) -> None:
    change(study, '"""Mine."""', "from trainables.tasks.classify import Classify")
    read(str(study))
    _, imported = own_code_version("zz_mine")
    assert "trainables.tasks.classify" in imported and "trainables.trainable" in imported


def test_a_trainable_of_this_package_may_be_named_as_own_code_is(study: Path, home: Home) -> None:
    change(study, "code: [zz_mine.py]\n", "", "study.yaml")
    change(study, "zz_mine:Mine", "trainables.tasks.classify:Classify", "study.yaml")
    found = read(str(study))
    assert not found.mapping.get("code")
    (run,) = prepare(found, None, home).runs
    assert run.predicts and own_code_version("trainables.tasks.classify")[1]


def test_own_code_travels_without_its_hidden_files(study: Path, tmp_path: Path) -> None:
    package = study.parent / "zz_pack"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "shapes.json", ".gitignore", "__pycache__/x.pyc"):
        (package / name).write_text("", encoding="utf-8")
    change(study, "[zz_mine.py]", "[zz_mine.py, zz_pack]", "study.yaml")
    mapping = read(str(study)).mapping
    there = tmp_path / "there"
    there.mkdir()
    assert ship(items_of(mapping), there) == ["zz_mine.py", "zz_pack"]
    found = sorted(str(path.relative_to(there)) for path in there.rglob("*") if path.is_file())
    assert found == ["zz_mine.py", "zz_pack/__init__.py", "zz_pack/shapes.json"]


def test_a_driver_reads_the_study_beside_its_code(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Home
) -> None:
    here = key(study, home)
    mapping: dict[str, Any] = dict(read(str(study)).mapping)
    there = tmp_path / "there"
    there.mkdir()
    mapping["code"] = ship(items_of(mapping), there)
    monkeypatch.chdir(there)
    monkeypatch.syspath_prepend(str(there))
    (run,) = prepare(from_mapping(mapping), None, home).runs
    assert run.key == here


def test_an_installed_package_offers_a_trainable_under_a_name(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    (site / "zz_pack").mkdir(parents=True)
    (site / "zz_pack" / "__init__.py").write_text(TRAINABLE, encoding="utf-8")
    info = site / "zz_pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zz-pack\nVersion: 1.0\n")
    points = f"[{entry_points.TRAINABLES}]\nmine = zz_pack:Mine\n"
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    change(study, "code: [zz_mine.py]\n", "", "study.yaml")
    change(study, "zz_mine:Mine", "mine", "study.yaml")
    found = read(str(study))
    assert found.stages[0].trainable == "zz_pack:Mine"
    assert found.mapping["code"] == [str(site / "zz_pack")]  # it travels too


def test_an_own_data_set_is_read(study: Path, home: Home) -> None:
    (study.parent / "zz_data.py").write_text(
        '"""Stripes."""\nimport numpy as np\nfrom PIL import Image\n'
        "from trainables.data.contract import DatasetType, Source\n\n"
        "def read(settings, root):\n"
        "    names = [f'{k}' for k in range(40)]\n"
        "    labels = np.arange(40) % 2\n"
        "    image = lambda k: Image.new('RGB', (8, 8), (k, 0, 255 * (k % 2)))\n"
        "    parts = {'train': np.arange(30), 'test': np.arange(30, 40)}\n"
        "    return Source(('a', 'b'), names, labels, parts, [], image)\n\n"
        "Tiles = DatasetType(read, 8, 'stripes')\n",
        encoding="utf-8",
    )
    change(study, "[zz_mine.py]", "[zz_mine.py, zz_data.py]", "study.yaml")
    change(study, "{type: digits, limit: 40}", "zz_data:Tiles", "study.yaml")
    prepared = prepare(read(str(study)), None, home)
    assert prepared.data["digits"].source.classes == ("a", "b")
    assert prepared.study.data["digits"].side == 8


def test_a_study_without_own_code_runs_and_looks_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_points, "target_of", lambda *_: pytest.fail("looked"))
    before = set(sys.modules)
    read("rotation_cifar10")
    assert not {name for name in set(sys.modules) - before if name.startswith("zz_")}
