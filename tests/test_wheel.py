"""The wheel holds every module and every built-in study; each module can be imported from it."""

import os
import sys
from pathlib import Path

from tests.installed import ROOT, run, wheel
from tests.test_architecture import FILES

IMPORT = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    file = importlib.import_module(name).__file__
    assert root in pathlib.Path(file).parents, f"{name} comes from {file}"
from orchestrator.config.yaml_loader import built_in_studies
print(*built_in_studies())
"""


def test_every_module_and_study_is_in_the_wheel(tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    studies = run(
        sys.executable, "-c", IMPORT, str(site), *FILES, cwd=tmp_path, env=environment
    ).split()
    assert studies == sorted(path.stem for path in (ROOT / "orchestrator/studies").glob("*.yaml"))
