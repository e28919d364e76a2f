"""A registry gives what a module defines, and loads the module then."""

import sys
from pathlib import Path

import pytest

from trainables.on_use import LoadedOnUse


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with the modules `one` and `two`; names that no test before has loaded."""
    name = f"package_{tmp_path.name.replace('-', '_')}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "one.py").write_text("one = 1\nITEM = 10\n", encoding="utf-8")
    (tmp_path / name / "two.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_a_module_is_loaded_when_its_name_is_looked_up(package: str) -> None:
    registry: LoadedOnUse[int] = LoadedOnUse(package, ("one", "two", "three"))
    assert list(registry) == ["one", "two", "three"] and len(registry) == 3
    assert "three" in registry and "four" not in registry
    assert registry.module("one") == f"{package}.one"
    assert f"{package}.one" not in sys.modules
    assert registry["one"] == 1
    assert f"{package}.one" in sys.modules


def test_an_attribute_may_have_another_name_than_its_module(package: str) -> None:
    assert LoadedOnUse[int](package, ["one"], "ITEM")["one"] == 10


def test_what_is_not_there_is_an_error(package: str) -> None:
    registry: LoadedOnUse[int] = LoadedOnUse(package, ("two", "three"))
    with pytest.raises(KeyError, match="four"):
        registry["four"]
    with pytest.raises(KeyError, match="four"):
        registry.module("four")
    with pytest.raises(AttributeError, match="two"):
        registry["two"]
    with pytest.raises(ImportError, match="three"):
        registry["three"]
