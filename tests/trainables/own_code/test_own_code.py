"""Own code is found where it is said to lie, as it is now, and a model carries it."""

import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainables.metrics import METRICS, Metric, UnknownMetric, add_own, metric_of
from trainables.own_code import finder
from trainables.own_code.carried import carried_sources, use_carried, write_carried
from trainables.own_code.names import load
from trainables.schemas.registry import TRAINABLE_SCHEMAS
from trainables.tasks.registry import PRODUCERS, TRAINABLES


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    finder.use({})


def used(**items: Path) -> None:
    finder.use(finder.sources_in(items))


def test_a_changed_module_is_never_an_old_one_and_nothing_is_written(tmp_path: Path) -> None:
    module = tmp_path / "zz_own.py"
    for value in range(3):  # of equal length, within one second
        module.write_text(f"VALUE = {value}\n", encoding="utf-8")
        used(zz_own=module)
        assert load("zz_own:VALUE") == value
    first = sys.modules["zz_own"]
    used(zz_own=module)
    assert sys.modules["zz_own"] is first  # nothing has changed
    assert [path.name for path in tmp_path.iterdir()] == ["zz_own.py"]


def test_a_package_imports_its_own_modules_and_forgets_them_together(tmp_path: Path) -> None:
    package = tmp_path / "zz_pack"
    package.mkdir()
    (package / "__init__.py").write_text("from .net import WIDTH\n", encoding="utf-8")
    (package / "net.py").write_text("WIDTH = 1\n", encoding="utf-8")
    used(zz_pack=package)
    assert load("zz_pack:WIDTH") == load("zz_pack.net:WIDTH") == 1
    (package / "net.py").write_text("WIDTH = 2\n", encoding="utf-8")
    used(zz_pack=package)
    assert load("zz_pack:WIDTH") == 2
    finder.use({})
    with pytest.raises(ModuleNotFoundError):
        load("zz_pack:WIDTH")


def test_an_error_names_the_line_of_the_user(tmp_path: Path) -> None:
    module = tmp_path / "zz_own.py"
    module.write_text("def f():\n    return json.dumps({1})\nimport json\nf()\n", encoding="utf-8")
    used(zz_own=module)
    with pytest.raises(TypeError) as error:
        load("zz_own:f")
    assert finder.place_of(error.value) == f"{module}:2"
    assert "return json.dumps({1})" in "".join(traceback.format_exception(error.value))


def test_registries_look_up_own_code_beside_their_names(tmp_path: Path) -> None:
    (tmp_path / "zz_own.py").write_text("class Mine:\n    METRICS = ()\n", encoding="utf-8")
    used(zz_own=tmp_path / "zz_own.py")
    assert "zz_own:Mine" not in TRAINABLES  # not loaded
    assert TRAINABLES["zz_own:Mine"].__name__ == "Mine"
    assert "zz_own:Mine" in TRAINABLES and "zz_own:Mine" not in PRODUCERS
    assert TRAINABLE_SCHEMAS["zz_own:Mine"] is TRAINABLES["zz_own:Mine"]
    assert "zz_own:Mine" not in list(TRAINABLES)


def test_a_model_carries_all_own_code_beside_its_trainable(tmp_path: Path) -> None:
    package = tmp_path / "zz_pack"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "late.py").write_text("LATE = 'ä'\n", encoding="utf-8")
    (tmp_path / "zz_own.py").write_text(
        "import zz_pack\nclass Mine:\n    def late(self):\n"
        "        from zz_pack.late import LATE\n        return LATE\n",
        encoding="utf-8",
    )
    used(zz_own=tmp_path / "zz_own.py", zz_pack=package)
    load("zz_own:Mine")
    texts = json.loads(json.dumps(carried_sources(["zz_own:Mine", "resnet18"])))
    assert sorted(texts) == ["zz_own.py", "zz_pack/__init__.py", "zz_pack/late.py"]
    finder.use({})
    use_carried(texts)
    assert load("zz_own:Mine")().late() == "ä"
    tops = write_carried(texts, tmp_path / "written")
    assert [path.name for path in tops] == ["zz_own.py", "zz_pack"]
    assert (tmp_path / "written/zz_pack/late.py").read_text(encoding="utf-8") == "LATE = 'ä'\n"


def test_a_built_in_trainable_carries_nothing() -> None:
    assert carried_sources(["classify", "resnet18"]) == {}
    assert carried_sources(["trainables.tasks.classify:Classify"]) == {}


def test_own_metrics_are_known_and_cannot_change_ours() -> None:
    with pytest.raises(UnknownMetric):
        metric_of("val/zz_confidence")
    add_own([Metric("zz_confidence", "max", "%", "confidence")])
    assert metric_of("val/zz_confidence").unit == "%"
    add_own([Metric("zz_confidence", "min", "", "another")])  # as in a notebook
    assert metric_of("val/zz_confidence").mode == "min"
    with pytest.raises(ValueError, match="loss"):
        add_own([Metric("loss", "max", "", "gain")])
    del METRICS["zz_confidence"]
