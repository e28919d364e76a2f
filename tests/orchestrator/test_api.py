"""`import orchestrator` is light; its names are those of the Python door, typed and documented."""

import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator as o
from orchestrator.config.errors import StudyError
from orchestrator.storage.home import Home
from tests.test_architecture import run

STUDY = """
study: x
data: {digits: {type: digits, limit: 40}}
stages: {only: {trainable: classify, config: {dataset: digits, epochs: 1}}}
"""


def test_importing_it_loads_none_of_the_large_libraries(tmp_path: Path) -> None:
    loaded = run("import orchestrator\nprint(*sys.modules)", tmp_path).split()
    assert not {"pydantic", "yaml", "numpy", "rich", "orchestrator.api"} & set(loaded)
    loaded = run("import orchestrator\norchestrator.read\nprint(*sys.modules)", tmp_path).split()
    assert "orchestrator.api" in loaded
    assert not {"torch", "ray", "mlflow", "pandas", "matplotlib"} & set(loaded)


def test_every_name_is_there_and_documented() -> None:
    for name in o.__all__:
        assert getattr(o, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        o.nothing  # noqa: B018


def test_a_study_is_read_with_settings_and_planned(tmp_path: Path, home: Home) -> None:
    (tmp_path / "x.yaml").write_text(STUDY, encoding="utf-8")
    study = o.read(tmp_path / "x.yaml", sets=["seeds=[0,1]"])
    planned = o.plan(study, home=home.root)
    assert [(item.run.name, item.state) for item in planned] == [
        ("only seed 0", "new"),
        ("only seed 1", "new"),
    ]
    with pytest.raises(StudyError) as error:
        o.read(tmp_path / "x.yaml", sets=["stages.only.config.epocs=1"])
    command = [sys.executable, "-m", "orchestrator", "plan", str(tmp_path / "x.yaml"),
               "--set", "stages.only.config.epocs=1", "--home", str(home.root)]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (2, f"error: {error.value}\n")
