"""The wheel holds every module and every built-in study; each module can be imported from it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.test_architecture import FILES, ROOT

IMPORT = """
import importlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    file = importlib.import_module(name).__file__
    assert root in pathlib.Path(file).parents, f"{name} comes from {file}"
from orchestrator.config.yaml_loader import built_in_studies
print(*built_in_studies())
"""


def run(*command: str, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_every_module_and_study_is_in_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = run("git", "-C", str(ROOT), "ls-files", "orchestrator", "trainables").split()
    for name in [*tracked, "pyproject.toml", "README.md", "LICENSE"]:
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    python, wheels, site = sys.executable, tmp_path / "wheels", tmp_path / "site"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels))
    run(*pip, *build, str(source))
    (wheel,) = wheels.glob("*.whl")
    run(*pip, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(site)}
    studies = run(python, "-c", IMPORT, str(site), *FILES, cwd=tmp_path, env=environment).split()
    assert studies == sorted(path.stem for path in (ROOT / "orchestrator/studies").glob("*.yaml"))
